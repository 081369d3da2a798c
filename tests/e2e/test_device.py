# SPDX-License-Identifier: MIT
"""The device in a real guest, against a mediator of raw bytes.

Most tests share one booted guest and bring a mediator of their own; each connection
starts with the device coming to that mediator, so they do not depend on one another.
Those that change the guest itself (two guests, power, wrong properties) come last.
"""
import struct
import subprocess
import threading
import time

import pytest

from fake_mediator import (BUSY, HEADER, HELLO, PING, PONG, QUARANTINED, REQUEST, RESPONSE,
                           FakeMediator, frame, response)

STATUS, ERROR_CODE, RESPONSE_LEN, IRQ_STATUS, LINK = 0x4, 0x14, 0x1C, 0x2C, 0x840
IDLE, RUNNING, DONE, ERROR = range(4)
RING = "w4 0x0 1"


class Vm:
    """The shared guest and where its device looks for a mediator."""

    def __init__(self, guest, socket):
        self.guest = guest
        self.socket = socket

    def mmio(self, *operations):
        """Performs operations of tests/e2e/mmio.c; returns what they print, numbers as int."""
        lines = self.guest.check("mmio " + " ".join(operations)).split()
        return [int(line, 16) if line.startswith("0x") else line for line in lines]

    def state(self):
        return tuple(self.mmio(f"r4 {STATUS}", f"r4 {ERROR_CODE}"))

    def submit(self, request_id=1, length=40):
        self.mmio(f"w4 0x18 {length}", f"w4 0x30 {request_id}", RING)


def connect(mediator, vm):
    """The device's connection after HELLO both ways, known to the guest.

    Connections that the device has closed meanwhile are passed over: a machine that
    boots again may reset its devices more than once.
    """
    while True:
        connection = mediator.accept()
        try:
            connection.hello()
            connection.send(frame(PING))
            if connection.message():
                vm.mmio(f"until {LINK} 3 10000")
                return connection
        except OSError:
            pass
        connection.close()


@pytest.fixture(scope="module")
def vm(make_guest, module_dir):
    # The longest path that a socket can have.
    name = "s" * (107 - len(str(module_dir)) - 1)
    socket = module_dir / name
    with make_guest(module_dir / "g",
                    [f"vgpu-stub,pool_id=B,priority=high,vm_id=200,socket={socket}"]) as guest:
        yield Vm(guest, socket)


@pytest.fixture
def mediator(vm):
    with FakeMediator(vm.socket) as mediator:
        yield mediator
    vm.mmio(f"until {LINK} 0 10000")


@pytest.fixture
def connection(mediator, vm):
    with connect(mediator, vm) as connection:
        yield connection


# ---- Without a mediator -----------------------------------------------------


def test_identity(vm):
    sys = "/sys/bus/pci/devices/*"
    found = vm.guest.check(f"for d in {sys}; do echo $(cat $d/vendor $d/device $d/class "
                           "$d/revision) $(sed -n 1p $d/resource); done; true")
    ours = [line.split() for line in found.splitlines() if line.startswith("0x1af4 0x1111")]
    assert len(ours) == 1
    assert ours[0][2:4] == ["0x120000", "0x02"]
    start, end, flags = (int(field, 16) for field in ours[0][4:])
    assert end - start == 0xFFF
    assert flags & 0xF == 0  # 32 bits, not prefetchable


def test_registers_at_boot(vm):
    # The guest is the first to look at the device, apart from its kernel's own look at PCI.
    assert vm.mmio(*(f"r4 {offset}" for offset in range(0, 0x40, 4))) == [
        0, IDLE, ord("B"), 2, 200, 0, 0, 0, 0x10000, 0x11, 0, 0, 0, 0, 0, 0]
    assert vm.mmio(*(f"r4 {offset}" for offset in range(0x840, 0x858, 4))) == [0] * 6
    assert vm.mmio("get 0x40 1024", "get 0x860 64") == ["00" * 1024, "00" * 64]


def test_no_mediator(vm):
    for length, code in [(0, 9), (1025, 2), (40, 3), (1024, 3)]:
        vm.submit(length=length)
        assert vm.state() == (ERROR, code)
    assert vm.mmio("oldclient 100 200") == ["error", 3]


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_widths(vm, width):
    value = 0x1122334455667788 & ((1 << 8 * width) - 1)
    for offset in (0x40, 0x43F + 1 - width, 0x101):  # the last one is misaligned
        vm.mmio("memset 0x40 0xff 1024", f"w{width} {offset} {value:#x}")
        assert vm.mmio(f"r{width} {offset}") == [value]
        data = bytes.fromhex(vm.mmio("get 0x40 1024")[0])
        at = offset - 0x40
        expected = bytearray(b"\xff" * 1024)
        expected[at:at + width] = value.to_bytes(width, "little")
        assert data == expected


def test_memset(vm):
    for fill in (0xA5, 0):
        for offset, count in ((0x40, 1024), (0x41, 1021), (0x47, 3)):
            vm.mmio("memset 0x40 0x11 1024", f"memset {offset} {fill} {count}")
            expected = bytearray(b"\x11" * 1024)
            expected[offset - 0x40:offset - 0x40 + count] = bytes([fill]) * count
            assert bytes.fromhex(vm.mmio("get 0x40 1024")[0]) == expected


def test_read_only(vm):
    before = vm.mmio("get 0x440 1024", "get 0x840 24")
    vm.mmio("memset 0x440 0xff 0x400", "memset 0x840 0xff 0x7c0", "w8 0x8 0xffffffffffffffff")
    assert vm.mmio("get 0x440 1024", "get 0x840 24") == before
    assert vm.mmio("r8 0x8", "get 0x860 256") == [0x200000042, "00" * 256]


# ---- With a mediator --------------------------------------------------------


def test_hello(mediator, vm):
    with mediator.accept() as connection:
        header = connection.read(HEADER.size)
        assert header == struct.pack("<IIIIcBH", 0x56475055, 7, 200, 0, b"B", 2, 16)
        version, features, channels, _ = struct.unpack("<4I", connection.read(16))
        assert (version, features, channels) == (1, 1, 0)
        vm.mmio(f"until {LINK} 1 10000")
        connection.send(frame(HELLO, payload=struct.pack("<6I", 1, 1, 0, 64, 0, 0)))
        vm.mmio(f"until {LINK} 3 10000")


def test_request_and_response(connection, vm):
    vm.mmio("memset 0x40 0 1024", "put 0x40 " + bytes(range(40)).hex())
    vm.submit(request_id=0xCAFE, length=39)
    assert vm.state() == (RUNNING, 0)
    request = connection.message()
    assert request == (REQUEST, 200, 0xCAFE, "B", 2, bytes(range(39)))

    payload = response(results=[300], data=bytes(range(256)) * 3)
    connection.send(frame(RESPONSE, 0xCAFE, payload))
    vm.mmio("wait 10000")
    assert vm.state() == (DONE, 0)
    status, length, irq, low, high = vm.mmio("r4 0x4", "r4 0x1c", "r4 0x2c", "r4 0x34", "r4 0x38")
    assert (status, length, irq) == (DONE, len(payload), 1)
    assert low or high
    assert bytes.fromhex(vm.mmio(f"get 0x440 {length}")[0]) == payload


def test_old_client(connection, vm):
    served = threading.Thread(target=connection.answer_add)
    served.start()
    assert vm.mmio("oldclient 100 200") == ["300"]
    served.join()


def test_old_mediator_ignores_hello(mediator, vm):
    with mediator.accept() as connection:
        assert connection.message().type == HELLO
        vm.mmio(f"until {LINK} 1 10000")
        served = threading.Thread(target=connection.answer_add)
        served.start()
        assert vm.mmio("oldclient -5 3") == ["-2"]
        served.join()


def test_old_mediator_drops_on_hello(mediator, vm):
    for _ in range(2):
        with mediator.accept() as connection:
            assert connection.message().type == HELLO
    with mediator.accept() as connection:
        vm.mmio(f"until {LINK} 1 10000")
        vm.submit()
        assert connection.message().type == REQUEST
        # Spoken to, so that the next test's mediator is greeted again.
        connection.send(frame(PONG))


def test_doorbell_while_busy(connection, vm):
    vm.submit(request_id=1)
    vm.mmio("w4 0x30 2", RING, "w8 0x0 1", "w1 0x0 1")
    assert connection.message().request_id == 1
    connection.send(frame(PING, 77))
    assert connection.message()[:3] == (PONG, 200, 77)  # so no second request is under way
    connection.send(frame(RESPONSE, 2, response(results=[2])))
    connection.send(frame(PING, 78))
    assert connection.message().request_id == 78
    assert vm.state() == (RUNNING, 0)
    connection.send(frame(RESPONSE, 1, response(results=[1])))
    vm.mmio("wait 10000")
    assert vm.mmio("r4 0x460") == [1]


@pytest.mark.parametrize("answer, code, busy, detail", [
    (frame(BUSY, 1, struct.pack("<2I", 2, 12345)), 0x0A, (2, 12345), 0),
    (frame(QUARANTINED, 1), 0x0B, (0, 0), 0),
    (frame(RESPONSE, 1, response(0x0A, [1, 99])), 0x0A, (1, 99), 0),
    (frame(RESPONSE, 1, response(0x05, [700, 0])), 0x05, (0, 0), 700),
    (frame(RESPONSE, 1, response(0x04)), 0x04, (0, 0), 0),
    (frame(RESPONSE, 1, response(0x1234, [5])), 0x05, (0, 0), 0),
], ids=["busy", "quarantined", "busy-as-response", "cuda", "timeout", "unknown"])
def test_refusals_and_failures(connection, vm, answer, code, busy, detail):
    vm.submit(request_id=1)
    assert connection.message().type == REQUEST
    connection.send(answer)
    vm.mmio("wait 10000")
    assert vm.state() == (ERROR, code)
    assert tuple(vm.mmio("r4 0x844", "r4 0x848", "r4 0x84c")) == (*busy, detail)


def test_answer_in_pieces(connection, vm):
    vm.submit(request_id=1)
    connection.message()
    data = frame(0x99, 1, b"a type of the future") + frame(RESPONSE, 1, response(results=[42]))
    for byte in data:
        connection.send(bytes([byte]))
    vm.mmio("wait 10000")
    assert vm.mmio("r4 0x4", "r4 0x460") == [DONE, 42]


def test_mediator_dies_while_busy(mediator, vm):
    with connect(mediator, vm) as connection:
        vm.submit()
        connection.message()
    vm.mmio("wait 10000")
    assert vm.state() == (ERROR, 3)
    # It comes back: the device is there again, and the old request is not repeated.
    with connect(mediator, vm) as connection:
        vm.submit(request_id=2)
        assert connection.message().request_id == 2


@pytest.mark.parametrize("garbage", [
    frame(RESPONSE, 1, response(), magic=0x12345678),
    frame(RESPONSE, 1, b"", length=1025),
    frame(RESPONSE, 1, b"short"),
    b"\xff" * 64,
], ids=["magic", "length", "short", "noise"])
def test_garbage(mediator, vm, garbage):
    with connect(mediator, vm) as connection:
        vm.submit()
        connection.message()
        connection.send(garbage)
        assert connection.message() is None  # closed by the device
        vm.mmio("wait 10000")
        assert vm.state() == (ERROR, 3)
    with connect(mediator, vm):
        pass


def test_mediator_that_does_not_read(connection, vm):
    """The guest and QEMU go on while nothing drains the socket, and nothing is lost."""
    for _ in range(2000):
        connection.send(frame(PING, 5) * 16)
    vm.submit(request_id=9, length=1024)
    assert vm.state() == (RUNNING, 0)
    message = connection.message()
    pongs = 0
    while message.type == PONG:
        message = connection.message()
        pongs += 1
    assert 16 <= pongs < 32000  # some found no room
    assert message.request_id == 9 and len(message.payload) == 1024
    connection.send(frame(RESPONSE, 9, response(results=[9])))
    vm.mmio("wait 10000")
    assert vm.state() == (DONE, 0)


def test_reset_with_a_request_in_flight(mediator, vm):
    with connect(mediator, vm) as old:
        vm.submit(request_id=1)
        assert old.message().request_id == 1
        vm.guest.reset()
        assert old.message() is None  # closed: that is the fence
        vm.guest.wait_ready()
        with connect(mediator, vm) as new:
            assert vm.mmio("r4 0x4", "r4 0x1c", "r4 0x30", "r4 0x840") == [IDLE, 0, 0, 3]
            # The same id again; only the new connection's answer counts.
            vm.submit(request_id=1)
            assert new.message().request_id == 1
            new.send(frame(RESPONSE, 1, response(results=[222])))
            vm.mmio("wait 10000")
            assert vm.mmio("r4 0x4", "r4 0x460") == [DONE, 222]


def test_reboot_by_the_guest(mediator, vm):
    with connect(mediator, vm) as old:
        vm.submit(request_id=1)
        old.message()
        vm.guest.reboot()
        assert old.message() is None
    with connect(mediator, vm):
        assert vm.state() == (IDLE, 0)


def test_not_migratable(vm):
    with pytest.raises(Exception, match="vgpu-stub"):
        vm.guest.qmp("migrate", uri="exec:cat >/dev/null")


def test_logs_are_limited(mediator, vm):
    """A guest that resets all the time fills no log."""
    before = len(vm.guest.qemu_log.read_text().splitlines())
    for _ in range(50):
        with mediator.accept() as connection:
            vm.guest.reset()
            while connection.message():
                pass
    vm.guest.wait_ready()
    assert len(vm.guest.qemu_log.read_text().splitlines()) - before <= 20


# ---- Guests of their own ----------------------------------------------------


def test_two_guests_and_a_late_mediator(make_guest, short_dir):
    """Two devices and one mediator that comes only after both have booted."""
    socket = short_dir / "m.sock"
    guests = [make_guest(short_dir / f"g{i}",
                         [f"vgpu-stub,pool_id={'AB'[i]},vm_id={i + 1},socket={socket}"])
              for i in range(2)]
    try:
        for guest in guests:
            guest.launch()
        for guest in guests:
            guest.wait_ready()
            assert "error 0x03" in guest.check("mmio oldclient 1 2")
        with FakeMediator(socket) as mediator:
            connections = {}
            for _ in guests:
                connection = mediator.accept()
                connections[connection.hello().vm_id] = connection
            assert sorted(connections) == [1, 2]
            for guest in guests:
                guest.check(f"mmio until {LINK} 3 10000 w4 0x18 40 w4 0x30 1 {RING}")
            # Both are under way at once; each gets its own answer, in either order.
            for vm_id in (2, 1):
                request = connections[vm_id].message()
                assert (request.vm_id, request.pool) == (vm_id, " AB"[vm_id])
                connections[vm_id].send(frame(RESPONSE, 1, response(results=[1000 + vm_id])))
            for i, guest in enumerate(guests):
                assert guest.check("mmio wait 10000 r4 0x4 r4 0x460").split() == [
                    "0x00000002", f"{1001 + i:#010x}"]
            assert guests[0].poweroff() == 0
            assert connections[1].message() is None
    finally:
        for guest in guests:
            guest.kill()


def test_unplug(make_guest, short_dir):
    socket = short_dir / "m.sock"
    with FakeMediator(socket) as mediator, make_guest(
            short_dir / "g", [f"vgpu-stub,id=gpu,socket={socket}"]) as guest:
        with mediator.accept() as connection:
            connection.hello()
            guest.qmp("device_del", id="gpu")
            assert connection.message() is None
            assert guest.run("mmio r4 0")[0] == 1


@pytest.mark.parametrize("properties, words", [
    ("pool_id=C", ["pool_id", "'C'", "'A' or 'B'"]),
    ("pool_id=", ["pool_id", "''"]),
    ("priority=urgent", ["priority", "'urgent'", "'medium'"]),
    ("socket=/" + "x" * 107, ["socket", "x" * 107, "107 bytes"]),
    ("vm_id=-1,priority=2", ["vgpu-stub"]),
])
def test_wrong_properties(qemu, properties, words):
    done = subprocess.run([qemu, "-accel", "tcg", "-nodefaults", "-display", "none", "-S",
                           "-device", f"vgpu-stub,{properties}"], timeout=30,
                          capture_output=True, text=True)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr


def test_defaults(make_guest, short_dir):
    """Pool A, medium, vm_id 0, as HELLO tells; and the path is the contract's."""
    socket = short_dir / "m.sock"
    with FakeMediator(socket) as mediator:
        guest = make_guest(short_dir / "g", [f"vgpu-stub,socket={socket}", "vgpu-stub"],
                           arguments=["-S"])
        try:
            guest.launch()
            with mediator.accept() as connection:
                assert connection.message()[:5] == (HELLO, 0, 0, "A", 1)
            deadline = time.monotonic() + 20
            while "/tmp/vgpu-mediator.sock" not in guest.qemu_log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            guest.kill()


def test_programs_that_qemu_starts(qemu, short_dir):
    """They do not get the preloaded device, of whose symbols they would die."""
    output = short_dir / "environment"
    command = f"exec:env >{output}.new; mv {output}.new {output}"
    with open(short_dir / "log", "wb") as log:
        process = subprocess.Popen([qemu, "-accel", "tcg", "-nodefaults", "-display", "none",
                                    "-incoming", command], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not output.exists():
            assert time.monotonic() < deadline, (short_dir / "log").read_text()
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    environment = output.read_text()
    assert "PATH=" in environment
    assert "LD_PRELOAD" not in environment

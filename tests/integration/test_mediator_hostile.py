# SPDX-License-Identifier: MIT
"""Peers that lie, flood, stall and vanish.

Each has a neighbour that keeps running jobs, none of which may fail. What the peer
does wrong inside good framing is answered; what breaks the framing ends its
connection, with a line in the log.
"""

import array
import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import tempfile
import time

import pytest

import mediator as harness
import wire

CONNECTIONS_MAX = 4  # per VM, the default


@pytest.fixture(scope="module")
def shared():
    """For what leaves no trace: a mediator, the UUID of a VM, and its neighbour."""
    with tempfile.TemporaryDirectory(prefix="vgpu-", dir="/tmp") as directory:
        with contextlib.closing(harness.Mediator(directory).start()) as mediator:
            bad, good = mediator.add_vms(1, 2)
            with harness.Neighbour(mediator, good) as neighbour:
                yield mediator, bad, neighbour


@pytest.fixture
def victim(mediator):
    """The UUID of the VM that misbehaves, while another one works."""
    bad, good = mediator.add_vms(1, 2)
    with harness.Neighbour(mediator, good):
        yield bad


def name_of(value):
    """Of a parameter, for the test's name: bytes are too long for one."""
    return f"{len(value)}-bytes" if isinstance(value, bytes) else None


def request_header(**fields):
    """A request of 40 bytes with some of its header's words changed."""
    names = ["version", "opcode", "flags", "count", "offset", "length", "r0", "r1"]
    values = {"version": wire.VERSION, "opcode": wire.OP_CUDA_KERNEL, "count": 2, **fields}
    return struct.pack("<10I", *(values.get(name, 0) for name in names), 100, 200)


# ---- Inside good framing ----------------------------------------------------


@pytest.mark.parametrize(
    "payload, code",
    [
        (b"", wire.INVALID_LENGTH),
        (b"\0", wire.INVALID_LENGTH),
        (request_header()[:31], wire.INVALID_LENGTH),
        (request_header(version=0), wire.INVALID_REQUEST),
        (request_header(version=0x00020000), wire.INVALID_REQUEST),
        (request_header(r0=1), wire.INVALID_REQUEST),
        (request_header(r1=0x80000000), wire.INVALID_REQUEST),
        (request_header(count=3), wire.INVALID_REQUEST),
        (request_header(count=0x3FFFFFFF), wire.INVALID_REQUEST),
        (request_header(count=0x40000000), wire.INVALID_REQUEST),
        (request_header(count=0xFFFFFFFF), wire.INVALID_REQUEST),
        (request_header(offset=0, length=1), wire.INVALID_REQUEST),
        (request_header(offset=39, length=1), wire.INVALID_REQUEST),
        (request_header(offset=40, length=1), wire.INVALID_REQUEST),
        (request_header(offset=40, length=0xFFFFFFFF), wire.INVALID_REQUEST),
        (request_header(offset=0xFFFFFFFF, length=1), wire.INVALID_REQUEST),
        (request_header(offset=0xFFFFFFFF, length=0xFFFFFFFF), wire.INVALID_REQUEST),
        (request_header(count=1), wire.INVALID_REQUEST),
        (request_header(count=0), wire.INVALID_REQUEST),
        (wire.encode_request(wire.OP_CUDA_KERNEL, [0] * 248), wire.INVALID_REQUEST),
        (wire.encode_request(wire.OP_SGEMM, [0, 1]), wire.INVALID_REQUEST),
        (wire.encode_request(wire.OP_SGEMM, [4097, 1]), wire.INVALID_REQUEST),
        (wire.encode_request(wire.OP_SPIN, [0xFFFFFFFF]), wire.INVALID_REQUEST),
        (wire.encode_request(0x0007), wire.UNSUPPORTED),
        (wire.encode_request(0x00FF), wire.UNSUPPORTED),
        (wire.encode_request(0x1FFF), wire.UNSUPPORTED),
        (wire.encode_request(0xFFFFFFFF), wire.UNSUPPORTED),
    ],
    ids=name_of,
)
def test_bad_request(shared, payload, code):
    mediator, victim, neighbour = shared
    for hello in (False, True):
        with mediator.connect(victim, hello) as device:
            device.send(wire.MSG_REQUEST, payload, id_=5)
            answer = device.answer()
            assert (answer.type, answer.id, answer.code) == (wire.MSG_RESPONSE, 5, code)
            device.works()
    neighbour.works()


def test_a_request_as_large_as_it_may_be(mediator, victim):
    device = mediator.connect(victim)
    data = bytes(range(256)) * 3 + bytes(1024 - 40 - 768)
    assert device.call(wire.OP_CUDA_KERNEL, [1, 2], data).words == [3]


def test_test_operations_are_off_by_default(new_mediator):
    mediator = new_mediator().start(allow_test_ops="no")
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    for opcode in (wire.OP_SPIN, wire.OP_FAULT, wire.OP_HANG, wire.OP_RESIDUE):
        assert device.call(opcode, [1]).code == wire.UNSUPPORTED
        assert device.call(opcode).code == wire.UNSUPPORTED
    device.works()
    assert mediator.vm_status(uuid)["faults"] == 0


@pytest.mark.parametrize("type_", [0, wire.MSG_BUSY, wire.MSG_QUARANTINED, 0x42, 0xFFFFFFFF])
@pytest.mark.parametrize("hello", [False, True])
def test_unknown_message_types(mediator, victim, type_, hello):
    device = mediator.connect(victim, hello)
    for payload in (b"", b"x" * 1024):
        device.send(type_, payload, id_=1)
    device.works()
    mediator.says(f"unknown type 0x{type_:02x}")


def test_answers_from_a_device_mean_nothing(mediator, victim):
    device = mediator.connect(victim)
    id_ = device.submit(wire.OP_CUDA_KERNEL, [1, 2])
    device.send(wire.MSG_RESPONSE, wire.encode_response(wire.OK, [99]), id_)
    assert device.answer().words == [3]
    device.nothing_more()


# ---- Broken framing ---------------------------------------------------------


@pytest.mark.parametrize(
    "message, why",
    [
        (struct.pack("<4IcBH", wire.SOCKET_MAGIC, 1, 0, 0, b"A", 1, 1025), "more than 1024 bytes"),
        (struct.pack("<4IcBH", wire.SOCKET_MAGIC, 1, 0, 0, b"A", 1, 65535), "more than 1024 bytes"),
        (struct.pack("<4IcBH", wire.SOCKET_MAGIC, 66, 0, 0, b"A", 1, 1025), "more than 1024 bytes"),
        (struct.pack("<4IcBH", 0x55504756, 1, 0, 0, b"A", 1, 40), "magic number"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "magic number"),
        (b"\0" * 20, "magic number"),
        (b"\xff" * 4096, "magic number"),
        (wire.pack_hello() + wire.pack_hello(), "HELLO was not its first message"),
        (
            wire.pack_socket(wire.MSG_PING) + wire.pack_hello(),
            "HELLO was not its first message",
        ),
        (wire.pack_socket(0x42) + wire.pack_hello(), "HELLO was not its first message"),
        (wire.pack_socket(wire.MSG_HELLO, b"\1\0\0\0"), "HELLO is too short"),
        (wire.pack_socket(wire.MSG_HELLO), "HELLO is too short"),
    ],
    ids=name_of,
)
def test_broken_framing(mediator, victim, message, why):
    device = mediator.connect(victim)
    device.sock.sendall(message)
    device.ended()
    mediator.says(why)
    mediator.connect(victim).works()


@pytest.mark.parametrize("broken", [b"\0" * 20, wire.pack_socket(wire.MSG_HELLO)], ids=name_of)
def test_nothing_after_broken_framing_is_done(mediator, victim, broken):
    mediator.connect(victim).works()  # from now on a job would run at once
    device = mediator.connect(victim)
    jobs = wire.pack_socket(wire.MSG_REQUEST, wire.encode_request(wire.OP_NOP), request_id=1)
    device.sock.sendall(broken + 50 * jobs)
    assert device.ended() == b""
    assert mediator.vm_status(victim)["jobs_done"] == 1


@pytest.mark.parametrize("cut", [1, 19, 20, 21, 59])
def test_truncated(mediator, victim, cut):
    """Half a message and then the end, and half a message and then nothing."""
    message = wire.pack_socket(wire.MSG_REQUEST, request_header(), request_id=1)
    held = mediator.connect(victim)
    held.sock.sendall(message[:cut])
    gone = mediator.connect(victim)
    gone.sock.sendall(message[:cut])
    gone.close()
    harness.wait_for(lambda: mediator.connections(victim) == 1, "the end of the connection")
    mediator.connect(victim).works()
    held.sock.sendall(message[cut:])
    assert held.answer().words == [300]
    assert mediator.vm_status(victim)["jobs_done"] == 2


def test_half_closed(mediator, victim):
    """A peer that will send nothing more has gone."""
    device = mediator.connect(victim)
    device.works()
    device.sock.shutdown(socket.SHUT_WR)
    device.ended()
    harness.wait_for(lambda: mediator.connections(victim) == 0, "the end of the connection")


# ---- Too much ---------------------------------------------------------------


def test_a_peer_that_never_reads(mediator, victim):
    """It is not read from for long, holds little, and is given up."""
    device = mediator.connect(victim)
    device.works()
    before_kib = mediator.rss_kib()
    request = wire.encode_request(wire.OP_CUDA_KERNEL, [1, 2], bytes(900))
    messages = 64 * wire.pack_socket(wire.MSG_REQUEST, request, request_id=1)
    pings = 64 * wire.pack_socket(wire.MSG_PING, bytes(1024))
    device.sock.setblocking(False)
    poller = select.poll()
    poller.register(device.sock, select.POLLOUT)
    sent = 0
    deadline = time.monotonic() + harness.LIMIT_S
    while time.monotonic() < deadline:
        # POLLIN stays out of it: it would be the answers.
        events = poller.poll(1000)
        if events and events[0][1] & (select.POLLHUP | select.POLLERR):
            break
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            if events:
                sent += device.sock.send(messages if sent < 1_000_000 else pings)
    else:
        mediator.fail("the connection goes on")
    assert sent < 8_000_000
    mediator.says("it does not read its answers")
    mediator.assert_grown_less(before_kib, 2 * 1024)
    harness.wait_for(lambda: mediator.vm_status(victim)["queue_depth"] == 0, "an empty queue")
    mediator.connect(victim).works()


def test_a_queue_is_bounded(new_mediator):
    """Beyond max_queue_per_vm the socket is not read; all is answered in the end."""
    mediator = new_mediator().start(max_queue_per_vm=16)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    device.submit(wire.OP_HANG)
    device.submit_all({1000 + n: (wire.OP_CUDA_KERNEL, [n, 1]) for n in range(200)})
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 16, "a full queue")
    [connection] = mediator.call("show-connections")["connections"]
    assert connection["paused"] is True
    assert mediator.vm_status(uuid)["queue_depth"] == 16
    os.kill(mediator.worker_pid(uuid), 9)
    answers = device.answers(201)
    done = [id_ for id_, answer in answers.items() if answer.code == wire.OK]
    assert len(done) >= 200 - 4
    assert all(answers[id_].words == [id_ - 999] for id_ in done)


def test_a_peer_that_goes_while_its_queue_is_full(new_mediator):
    """Nobody reads from it, and yet its end is seen: nothing that it left is run."""
    mediator = new_mediator().start(max_queue_per_vm=16)
    uuid = mediator.add_vm()
    for _ in range(CONNECTIONS_MAX + 1):
        device = mediator.connect(uuid)
        device.works()
        done = mediator.vm_status(uuid)["jobs_done"]
        device.submit(wire.OP_HANG)
        device.submit_all({1000 + n: (wire.OP_NOP, []) for n in range(100)})
        harness.wait_for(
            lambda: any(c["paused"] for c in mediator.call("show-connections")["connections"]),
            "a full queue",
        )
        device.close()
        harness.wait_for(lambda: mediator.connections(uuid) == 0, "the end of the connection")
        status = mediator.vm_status(uuid)
        assert status["queue_depth"] == status["in_flight"] <= 4
        os.kill(mediator.worker_pid(uuid), 9)
        harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 0, "an empty queue")
        assert mediator.vm_status(uuid)["jobs_done"] == done


def test_a_single_request_passes_a_flood(mediator):
    """
    What four VMs have sent on all their connections before it is taken a few at a time, so
    that the names of jobs, given one after the other, show how many came first.
    """
    *floods, light = mediator.add_vms(*range(1, 6))
    devices = [mediator.connect(uuid) for uuid in floods for _ in range(CONNECTIONS_MAX)]
    last = mediator.connect(light)
    last.works()
    first_id = mediator.vm_status(light)["jobs_done"]
    for device in devices:
        device.nothing_more()
    mediator.signal(signal.SIGSTOP)
    for device in devices:
        device.submit_all({n: (wire.OP_HANG, []) for n in range(50)})
    last.submit(wire.OP_HANG)
    mediator.signal(signal.SIGCONT)
    harness.wait_for(lambda: sum_of_jobs(mediator) == 4 * CONNECTIONS_MAX * 50 + 1, "all jobs")
    [job] = [j["job"] for j in mediator.call("list-jobs")["jobs"] if j["vm_uuid"] == light]
    assert job - first_id <= 4 * 4 + 16 + 1
    mediator.kill()  # it would wait for the jobs


def sum_of_jobs(mediator):
    return sum(vm["queue_depth"] for vm in mediator.status()["vms"])


def test_bytes_of_a_queue_are_bounded(new_mediator):
    mediator = new_mediator().start(max_queued_bytes_per_vm=8192)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    device.submit(wire.OP_HANG)
    device.submit_all({1000 + n: (wire.OP_CUDA_KERNEL, [n, 1], bytes(984)) for n in range(40)})
    harness.wait_for(
        lambda: mediator.call("show-connections")["connections"][0]["paused"], "a pause"
    )
    assert mediator.vm_status(uuid)["queue_depth"] == 8
    os.kill(mediator.worker_pid(uuid), 9)
    assert len(device.answers(41)) == 41


def test_connections_one_after_another(mediator, victim):
    device = mediator.connect(victim)
    device.works()
    device.close()
    harness.wait_for(lambda: mediator.connections(victim) == 0, "the end of the connection")
    descriptors = mediator.descriptors()
    for number in range(1000):
        with mediator.connect_raw(victim) as sock:
            if number % 3 == 0:
                sock.send(wire.pack_hello())
            elif number % 3 == 1:
                sock.send(b"\x55\x47")
    harness.wait_for(lambda: mediator.connections(victim) == 0, "the end of all connections")
    harness.wait_for(lambda: mediator.descriptors() <= descriptors, "as few descriptors")
    mediator.connect(victim).works()


def test_connections_at_once(mediator, victim):
    """Only so many are held; the others are closed at once, and the log stays short."""
    socks = [mediator.connect_raw(victim) for _ in range(1000)]
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)
    harness.wait_for(
        lambda: len(poller.poll(0)) == 1000 - CONNECTIONS_MAX, "the end of all but four"
    )
    assert mediator.connections(victim) == CONNECTIONS_MAX
    assert all(os.read(fd, 1) == b"" for fd, _ in poller.poll(0))
    for sock in socks:
        sock.close()
    harness.wait_for(lambda: mediator.connections(victim) == 0, "the end of all connections")
    assert 1 <= mediator.log().count("too many connections") <= 5
    mediator.connect(victim).works()


def test_descriptors_are_not_taken(mediator, victim):
    device = mediator.connect(victim)
    device.works()
    before = mediator.descriptors()
    reader, writer = os.pipe()
    message = wire.pack_socket(wire.MSG_REQUEST, request_header(), request_id=9)
    with os.fdopen(reader, "rb") as end:
        for _ in range(50):
            rights = array.array("i", [writer] * 10)
            device.sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            assert device.answer().words == [300]
        os.close(writer)
        # Nobody holds the other end any more.
        assert end.read() == b""
    harness.wait_for(lambda: mediator.descriptors() <= before, "as few descriptors")


def test_random_bytes(mediator, victim):
    """Noise, and good messages with a few bytes changed."""
    generator = random.Random(20_240_607)
    good = wire.pack_hello() + wire.pack_socket(wire.MSG_PING, b"abc") + 3 * wire.pack_socket(
        wire.MSG_REQUEST, wire.encode_request(wire.OP_CUDA_KERNEL, [1, 2], b"data")
    )
    for number in range(400):
        if number % 4 == 0:
            message = generator.randbytes(generator.randrange(1, 3000))
        else:
            message = bytearray(good)
            for _ in range(generator.randrange(1, 8)):
                message[generator.randrange(len(message))] = generator.randrange(256)
        with harness.Device(mediator.socket_of(victim)) as device:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                device.sock.sendall(message)
                device.sock.shutdown(socket.SHUT_WR)
            device.ended()
    harness.wait_for(lambda: mediator.connections(victim) == 0, "the end of all connections")
    mediator.connect(victim).works()
    # What a peer can cause is written down, but not without end.
    assert len(mediator.log().splitlines()) < 400


def test_descriptors_run_out(new_mediator):
    """Who is there goes on, who comes waits; it is said, and nobody is turned away for good."""
    mediator = new_mediator().start(prefix=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
    uuids = mediator.add_vms(*range(1, 17))
    first = mediator.connect(uuids[0])
    first.works()
    with contextlib.ExitStack() as stack:
        for uuid in uuids[1:]:
            for _ in range(CONNECTIONS_MAX):
                stack.enter_context(harness.Device(mediator.socket_of(uuid)))
        mediator.says(": cannot accept connections: Too many open files")
        stack.enter_context(mediator.connect_admin())
        mediator.says("admin socket: cannot accept connections")
        first.works()
        assert mediator.log().count("cannot accept") < 1000
    mediator.status()
    mediator.connect(uuids[-1]).works()


# ---- The admin socket -------------------------------------------------------


def ask(sock, line):
    """Sends one line, reads one, which must be an answer."""
    sock.sendall(line + b"\n")
    answer = bytearray()
    while not answer.endswith(b"\n"):
        part = sock.recv(65536)
        assert part, "the connection was closed"
        answer += part
    return json.loads(answer)


@pytest.mark.parametrize(
    "line, code, words",
    [
        (b"{", -32700, "not JSON"),
        (b"hello", -32700, "not JSON"),
        (b"\xff\xfe\x00\x80", -32700, "not JSON"),
        (b"\0\0\0\0", -32700, "not JSON"),
        (b'{"id":1,"id":2,"method":"ping"}', -32700, "duplicate"),
        (b'{"id":1,"method":"ping"} x', -32700, "not JSON"),
        (b"[" * 60000, -32700, "not JSON"),
        (b"[]", -32600, "method"),
        (b"null", -32700, "not JSON"),
        (b'{"id":1}', -32600, "method"),
        (b'{"id":1,"method":5}', -32600, "method"),
        (b'{"id":1,"method":"ping","params":[]}', -32602, "object"),
        (b'{"id":1,"method":"ping","params":"x"}', -32602, "object"),
        (b'{"id":1,"method":"frobnicate"}', -32601, "help"),
        (b'{"id":1,"method":"x' + "é".encode() * 60 + b'"}', -32601, "help"),
        (b'{"id":1,"method":"x' + "☃".encode() * 60 + b'"}', -32601, "help"),
        (b'{"id":1,"method":""}', -32601, "help"),
    ],
    ids=name_of,
)
def test_admin_bad_requests(shared, line, code, words):
    mediator, _, neighbour = shared
    with mediator.admin() as sock:
        answer = ask(sock, line)
        assert answer["error"]["code"] == code
        assert words in answer["error"]["message"]
        assert ask(sock, b'{"id":"again","method":"ping"}')["id"] == "again"
    neighbour.works()


def test_admin_line_without_end(mediator, victim):
    sock = mediator.admin()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            sock.sendall(b"x" * 65536)
    mediator.says("a request line has no end")
    mediator.status()


def test_admin_many_requests_at_once(mediator, victim):
    """Pipelined requests are all answered, in bounded memory, however slowly it is read."""
    mediator.add_vms(*range(10, 50))  # so that an answer is long
    sock = mediator.admin()
    before_kib = mediator.rss_kib()
    request = b'{"id":1,"method":"status"}\n'
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sock.sendall(request * 100)
    mediator.status()
    mediator.assert_grown_less(before_kib, 1024)
    sock.setblocking(True)
    with sock.makefile("rb") as lines:
        for _ in range(1000):
            assert json.loads(lines.readline())["result"]["backend"] == "cpu"


def test_admin_many_clients(mediator, victim):
    """One more than there may be is closed; when one goes, there is a place again."""
    before = mediator.descriptors()
    socks = [mediator.admin() for _ in range(64)]
    for sock in socks:
        assert ask(sock, b'{"id":1,"method":"ping"}')["result"]
    extra = mediator.admin()
    assert extra.recv(1) == b""
    mediator.says("64 connections are open")
    for sock in socks:
        sock.close()
    harness.wait_for(lambda: mediator.descriptors() <= before, "the end of all connections")
    mediator.status()


def test_admin_client_that_leaves(mediator, victim):
    """An answer for somebody who has gone leads nowhere."""
    for _ in range(50):
        with contextlib.closing(mediator.admin()) as sock:
            sock.sendall(b'{"id":1,"method":"reload"}\n{"id":2,"method":"status"}\n')
    mediator.reload()

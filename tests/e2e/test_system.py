# SPDX-License-Identifier: MIT
"""The whole system: two virtual machines, the mediator, its workers.

Both guests boot once for all tests here; each test leaves them working, and one that
has to end a guest comes last. What is checked is what a guest sees, through the
real device, with the client that users have.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import sys

import pytest

from guest import BUILD, Guest, GuestError

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))

import mediator as host  # noqa: E402
import wire  # noqa: E402

CLIENT = BUILD / "bin" / "vgpu-client-static"
STATUS_IDLE, STATUS_DONE = 0, 2
EXIT_NO_MEDIATOR, EXIT_FAILED, EXIT_BUSY, EXIT_QUARANTINED, EXIT_TIMEOUT = 69, 70, 75, 77, 124


class System:
    """A mediator with two registered VMs, and the guest of each."""

    def __init__(self, directory, make_guest):
        self.mediator = host.Mediator(directory / "m")
        self.mediator.directory.mkdir()
        self.settings = {"job_timeout_ms": 2000, "quarantine_threshold": 100}
        self.mediator.start(**self.settings)
        self.uuids = self.mediator.add_vms(1, 2)
        self.guests = [make_guest(directory / f"g{i}", [self.device(i)]) for i in range(2)]

    def device(self, index):
        path = self.mediator.sockets / f"{self.uuids[index]}.sock"
        return f"vgpu-stub,vm_id={index + 1},socket={path}"

    def boot(self):
        for guest in self.guests:
            guest.launch()
        for guest in self.guests:
            guest.wait_ready()
            self.works(guest)

    def works(self, guest):
        """The next job of a guest works, once its device is connected."""
        host.wait_for(lambda: guest.run("vgpu-client add 100 200")[0] == 0, "a job that works")
        assert guest.check("vgpu-client add 100 200") == "100 + 200 = 300"

    def close(self):
        for guest in self.guests:
            guest.kill()
        self.mediator.close()


@pytest.fixture(scope="module")
def system(module_dir, qemu, kernel, make_initramfs):
    initramfs = make_initramfs(f"{CLIENT}:/bin/vgpu-client")
    made = System(module_dir, lambda directory, devices: Guest(
        directory, kernel, initramfs, devices, qemu=qemu))
    with contextlib.closing(made):
        made.boot()
        yield made


def together(function, things):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(function, things))


def test_info_names_the_backend(system):
    info = json.loads(system.guests[0].check("vgpu-client --json info"))
    assert info["gpu"]["backend"] == "cpu"


@pytest.mark.parametrize(
    "a, b, total",
    [("100", "200", "300"), ("-5", "-7", "-12"), ("2147483647", "1", "-2147483648")],
)
def test_sums(system, a, b, total):
    assert system.guests[0].check(f"vgpu-client add -- {a} {b}").endswith(f"= {total}")


def test_an_old_client_works(system):
    assert "300" in system.guests[1].check("mmio oldclient 100 200")


def test_both_compute_at_once_and_verify(system):
    outputs = together(
        lambda guest: guest.check("vgpu-client sgemm --n 200 --seed 7 --count 5", 120),
        system.guests,
    )
    for output in outputs:
        assert output.count("verified") == 5
    assert outputs[0].split("checksum")[1].split(",")[0] == outputs[1].split("checksum")[1].split(",")[0]


def test_fault_and_hang_are_errors_and_the_next_job_works(system):
    guest = system.guests[0]
    assert guest.run("vgpu-client fault")[0] == EXIT_FAILED
    system.works(guest)
    assert guest.run("vgpu-client hang", 30)[0] == EXIT_TIMEOUT
    system.works(guest)


def test_a_neighbour_hangs_and_nobody_else_notices(system):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hang = pool.submit(system.guests[0].run, "vgpu-client hang", 60)
        status, output = system.guests[1].run(
            "vgpu-client --json bench --op add --count 200", 120)
        assert hang.result()[0] == EXIT_TIMEOUT
    assert status == 0, output
    assert json.loads(output)["failed"] == 0
    system.works(system.guests[0])


def test_refused_guest_retries_and_succeeds(system):
    guest, uuid = system.guests[1], system.uuids[1]
    system.mediator.set_vm(uuid, max_jobs_per_sec=4, burst=1)
    try:
        status, output = guest.run("vgpu-client --json bench --op nop --count 6", 60)
        assert status == 0, output
        result = json.loads(output)
        assert result["done"] == 6 and result["retries"] > 0
        status, output = guest.run("for i in 1 2 3 4; do vgpu-client --retries 0 ping; s=$?; "
                                   "[ $s = 0 ] || exit $s; done", 60)
        assert status == EXIT_BUSY, output
    finally:
        system.mediator.set_vm(uuid, max_jobs_per_sec=0, burst=0)
    system.works(guest)


def test_quarantined_guest_is_told_and_stops(system):
    guest, uuid = system.guests[1], system.uuids[1]
    system.mediator.set_vm(uuid, quarantined=1)
    try:
        status, output = guest.run("vgpu-client ping")
        assert status == EXIT_QUARANTINED, output
    finally:
        system.mediator.set_vm(uuid, quarantined=0)
    system.works(guest)


def test_mediator_killed_with_a_job_running(system):
    """The waiting guest gets an error; both reconnect by themselves."""
    guest, uuid = system.guests[0], system.uuids[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hang = pool.submit(guest.run, "vgpu-client --retries 0 hang", 60)
        host.wait_for(lambda: system.mediator.vm_status(uuid)["in_flight"] == 1, "a running job")
        system.mediator.kill()
        status, output = hang.result()
    assert status == EXIT_NO_MEDIATOR, output
    system.mediator.start(**system.settings)
    for each in system.guests:
        system.works(each)


def test_worker_killed_with_a_job_running(system):
    guest, uuid = system.guests[0], system.uuids[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hang = pool.submit(guest.run, "vgpu-client hang", 60)
        host.wait_for(lambda: system.mediator.vm_status(uuid)["in_flight"] == 1, "a running job")
        os.kill(system.mediator.worker_pid(uuid), signal.SIGKILL)
        assert hang.result()[0] == EXIT_FAILED
    system.works(guest)


def submit(guest, request, request_id):
    """By hand and without waiting, as a driver does."""
    guest.check(f"mmio put 0x40 {request.hex()} w4 0x18 {len(request)} w4 0x30 {request_id} w4 0 1")


def test_a_guest_that_reboots_never_gets_the_old_answer(system):
    """The old job still runs when the rebooted guest asks, under the id of the old request."""
    guest, uuid = system.guests[0], system.uuids[0]
    system.mediator.set_vm(uuid, job_timeout_ms=120000)
    submit(guest, wire.encode_request(wire.OP_SPIN, [25000000]), 99)
    host.wait_for(lambda: system.mediator.vm_status(uuid)["in_flight"] == 1, "a running job")
    guest.reboot()
    assert int(guest.check("mmio r4 4"), 16) == STATUS_IDLE
    submit(guest, wire.encode_request(wire.OP_CUDA_KERNEL, [100, 200]), 99)
    state = system.mediator.vm_status(uuid)
    assert (state["in_flight"], state["queue_depth"]) == (1, 2), "the old job was over too soon"
    guest.check("mmio wait 60000", 90)
    status, length, result = (int(guest.check(f"mmio r4 {at}"), 16) for at in (4, 0x1C, 0x460))
    assert (status, length, result) == (STATUS_DONE, 36, 300)
    system.works(guest)
    system.mediator.set_vm(uuid, job_timeout_ms=0)


def test_qemu_killed_with_a_job_running(system):
    """Last: one guest is gone after it. The other one works meanwhile, and does not notice."""
    victim, survivor = system.guests
    uuid = system.uuids[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = system.mediator.vm_status(system.uuids[1])["jobs_done"]
        load = pool.submit(survivor.run, "vgpu-client --json bench --op add --seconds 8", 90)
        host.wait_for(lambda: system.mediator.vm_status(system.uuids[1])["jobs_done"] > done + 10,
                      "jobs of the other guest")
        lost = pool.submit(victim.run, "vgpu-client hang", 60)
        host.wait_for(lambda: system.mediator.vm_status(uuid)["in_flight"] == 1, "a running job")
        victim.kill()
        with pytest.raises((GuestError, OSError, AttributeError)):
            lost.result()
        status, output = load.result()
    assert status == 0, output
    result = json.loads(output)
    assert result["done"] > 0 and result["failed"] == 0
    system.works(survivor)
    host.wait_for(lambda: system.mediator.vm_status(uuid)["connected"] == 0, "a closed connection")
    host.wait_for(lambda: system.mediator.vm_status(uuid)["in_flight"] == 0, "the job's end")
    with system.mediator.registry() as registry:
        assert registry.execute("PRAGMA integrity_check").fetchone() == ("ok",)

# SPDX-License-Identifier: MIT
"""Faults, points and quarantine, with the real programs.

The cpu backend's FAULT is a real SIGSEGV of the worker, its HANG a loop that ends only
with the worker.
"""
import subprocess
import time

import pytest

import mediator as harness
import wire
from paths import ADMIN

FAULT_KINDS = ("gpu_fault", "timeout", "worker_death")


def history(mediator, uuid):
    """[(kind, points, detail, by)] as the registry has them."""
    with mediator.registry() as registry:
        return registry.execute(
            "SELECT kind, points, detail, done_by FROM faults WHERE vm_uuid = ? ORDER BY id",
            (uuid,),
        ).fetchall()


def died(mediator, uuid):
    """The row of a FAULT on the cpu backend; a sanitizer may make another signal of it."""
    detail = history(mediator, uuid)[0][2]
    assert detail in ("signal 11", "signal 4")
    return ("worker_death", 1, detail, None)


def faults_of(mediator, uuid):
    """[(kind, points)] of its faults."""
    return [row[:2] for row in history(mediator, uuid) if row[0] in FAULT_KINDS]


def stored(mediator, uuid):
    """(quarantined, error_count) as the registry has them."""
    with mediator.registry() as registry:
        return registry.execute(
            "SELECT quarantined, error_count FROM vms WHERE vm_uuid = ?", (uuid,)
        ).fetchone()


def points(mediator, uuid):
    return mediator.vm_status(uuid)["fault_points"]


def wait_for_faults(mediator, uuid, count):
    harness.wait_for(lambda: mediator.vm_status(uuid)["faults"] == count, f"fault {count}")


def fault(device):
    answer = device.call(wire.OP_FAULT)
    assert answer.code == wire.CUDA
    return answer


def admin(mediator, *arguments):
    return subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, *arguments],
        check=True, capture_output=True, text=True).stdout


def test_nine_faults_quarantine_and_the_tenth_job_is_refused(mediator):
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid, hello=True)
    for _ in range(9):
        fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    assert stored(mediator, uuid) == (1, 9)
    assert history(mediator, uuid) == [died(mediator, uuid)] * 9 + [
        ("quarantined", 0, "9 points within 3600 s", "vgpu-mediator")
    ]
    mediator.connect(other).works()
    assert stored(mediator, other) == (0, 0)


def test_three_timeouts_quarantine(new_mediator):
    mediator = new_mediator().start(job_timeout_ms=100)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    for _ in range(3):
        assert device.call(wire.OP_HANG).code == wire.TIMEOUT
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    assert history(mediator, uuid)[:3] == [("timeout", 3, "limit 100 ms", None)] * 3


def test_an_old_guest_gets_an_error_that_is_no_timeout(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=1)
    device = mediator.connect(mediator.add_vm())
    fault(device)
    answer = device.call(wire.OP_NOP)
    assert (answer.type, answer.code) == (wire.MSG_RESPONSE, wire.QUARANTINED)


def test_points_are_forgotten_after_their_window(new_mediator):
    mediator = new_mediator().start(fault_window_s=1, quarantine_threshold=2)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    for _ in range(3):
        fault(device)
        harness.wait_for(lambda: points(mediator, uuid) == 0, "forgetting")
    device.works()
    assert stored(mediator, uuid) == (0, 3)


def test_points_have_their_window_across_restarts(new_mediator):
    """By the host's clock, on which the mediator does not depend while it runs."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    mediator.kill()
    now = int(time.time())
    with mediator.registry() as registry:
        registry.executemany(
            "INSERT INTO faults (vm_uuid, at, kind, points) VALUES (?, ?, 'worker_death', 1)",
            [(uuid, now - 3601), (uuid, now - 3000), (uuid, now)])
    mediator.start()
    assert points(mediator, uuid) == 2
    mediator.stop()
    mediator.start(fault_window_s=2000)
    assert points(mediator, uuid) == 1


def test_points_of_a_clock_that_was_set_back_are_forgotten_too(new_mediator):
    """They happened by now at the latest; however often the registry is read."""
    mediator = new_mediator().start(fault_window_s=4)
    uuid = mediator.add_vm()
    mediator.kill()
    tomorrow = int(time.time()) + 86400
    with mediator.registry() as registry:
        registry.execute(
            "INSERT INTO faults (vm_uuid, at, kind, points) VALUES (?, ?, 'timeout', 3)",
            (uuid, tomorrow))
    mediator.start(fault_window_s=4)
    mediator.says("the host's clock was set back")

    def forgotten():
        mediator.reload()
        return points(mediator, uuid) == 0

    harness.wait_for(forgotten, "forgetting")
    with mediator.registry() as registry:
        [(at,)] = registry.execute("SELECT at FROM faults").fetchall()
    assert at <= time.time()


def test_points_survive_a_restart(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=3)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    fault(device)
    fault(device)
    mediator.kill()
    mediator.start(quarantine_threshold=3)
    assert points(mediator, uuid) == 2
    device = mediator.connect(uuid, hello=True)
    fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED


def test_cleared_the_next_job_runs(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=1)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    admin(mediator, "clear-quarantine", f"--vm-uuid={uuid}")
    assert points(mediator, uuid) == 0
    device.works()
    assert stored(mediator, uuid) == (0, 1)


def test_queued_jobs_of_a_quarantined_vm_are_answered(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=1)
    device = mediator.connect(mediator.add_vm(), hello=True)
    faulty = device.submit(wire.OP_FAULT)
    rest = [device.submit(wire.OP_SPIN, [1000]) for _ in range(20)]
    answers = device.answers(21)
    assert answers[faulty].code == wire.CUDA
    # Those sent to the worker are lost with it, the others never ran.
    assert {answers[id_].code for id_ in rest} <= {wire.CONTEXT_LOST, wire.QUARANTINED}
    assert answers[rest[-1]].code == wire.QUARANTINED


# ---- What is stored, and when -------------------------------------------------


@pytest.mark.parametrize("operation", [wire.OP_FAULT, wire.OP_HANG])
def test_a_fault_is_stored_before_its_answer(new_mediator, operation):
    """Killed at the moment of the answer, the mediator knows of every single fault."""
    mediator = new_mediator().start(job_timeout_ms=100, quarantine_threshold=1000)
    uuid = mediator.add_vm()
    for count in range(1, 11):
        device = mediator.connect(uuid)
        assert device.call(operation).code in (wire.CUDA, wire.TIMEOUT)
        mediator.kill()
        assert stored(mediator, uuid) == (0, count)
        assert len(faults_of(mediator, uuid)) == count
        mediator.start(job_timeout_ms=100, quarantine_threshold=1000)


def test_registry_locked_while_quarantine_is_stored(new_mediator):
    """The answer waits for the registry; once that fails the VM is quarantined all the same."""
    mediator = new_mediator().start(quarantine_threshold=1)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    device.works()
    with mediator.registry() as registry:
        registry.execute("BEGIN EXCLUSIVE")
        faulty = device.submit(wire.OP_FAULT)
        # Not sent to the worker that the fault takes with it.
        harness.wait_for(lambda: mediator.vm_status(uuid)["worker"] == "none", "the worker's end")
        waiting = device.submit(wire.OP_NOP)
        answers = device.answers(2)
        assert answers[faulty].code == wire.CUDA
        assert answers[waiting].type == wire.MSG_QUARANTINED
        registry.rollback()
    harness.wait_for(lambda: stored(mediator, uuid) == (1, 1), "the quarantine in the registry")
    assert history(mediator, uuid) == [
        died(mediator, uuid),
        ("quarantined", 0, "1 point within 3600 s", "vgpu-mediator"),
    ]


def test_faults_of_a_locked_registry_are_stored_later(new_mediator):
    """None is lost, and each has the time at which it happened."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    times = []
    with mediator.registry() as registry:
        registry.execute("BEGIN EXCLUSIVE")
        for count in (1, 2):
            before = int(time.time())
            device.submit(wire.OP_FAULT)
            wait_for_faults(mediator, uuid, count)
            times.append((before, time.time()))
            assert device.answer().code == wire.CUDA
            device.works()
        registry.rollback()
    assert points(mediator, uuid) == 2
    harness.wait_for(lambda: stored(mediator, uuid) == (0, 2), "the faults in the registry")
    with mediator.registry() as registry:
        rows = registry.execute("SELECT at FROM faults ORDER BY id").fetchall()
    # Written once the lock was gone, five seconds or more after the first of them.
    assert all(before <= at <= after for (at,), (before, after) in zip(rows, times)), (rows, times)
    mediator.kill()
    mediator.start()
    assert points(mediator, uuid) == 2


# ---- What an administrator takes back ------------------------------------------


def test_points_of_a_vm_that_is_not_quarantined_are_cleared(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    for _ in range(2):
        for _ in range(8):
            fault(device)
        assert points(mediator, uuid) == 8
        admin(mediator, "clear-quarantine", f"--vm-uuid={uuid}", "--reason=was me")
        assert points(mediator, uuid) == 0
    device.works()
    by = history(mediator, uuid)[-1][3]
    assert by and history(mediator, uuid)[-1] == ("cleared", 0, "was me", by)


def test_a_quarantine_ended_in_the_file_ends_the_points(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    for _ in range(9):
        fault(device)
    mediator.set_vm(uuid, quarantined=0)
    mediator.reload()
    for _ in range(8):
        fault(device)
        device.works()
    assert points(mediator, uuid) == 8


def test_points_of_a_row_that_is_repaired(new_mediator):
    """While it was bad it was not served; what is remembered of it counts all the same."""
    mediator = new_mediator().start(quarantine_threshold=2)
    uuid = mediator.add_vm()
    fault(mediator.connect(uuid))
    mediator.kill()
    with mediator.registry() as registry:
        registry.execute("UPDATE vms SET weight = 1000")
    mediator.start(quarantine_threshold=2)
    assert mediator.vm_status(uuid) is None
    mediator.set_vm(uuid, weight=1)
    assert points(mediator, uuid) == 1
    device = mediator.connect(uuid, hello=True)
    fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED


def test_points_of_a_file_that_is_restored(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    for _ in range(3):
        fault(device)
    copy = mediator.directory / "copy.db"
    admin(mediator, "backup", copy)
    admin(mediator, "clear-quarantine", f"--vm-uuid={uuid}")
    fault(device)
    assert points(mediator, uuid) == 1
    copy.rename(mediator.database)
    harness.wait_for(lambda: points(mediator, uuid) == 3, "the points of the restored file")


def test_a_short_limit_survives_a_restart(new_mediator):
    """After a hang the limit is a tenth until a job succeeds, restart or not."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm(job_timeout_ms=20000)
    mediator.kill()
    with mediator.registry() as registry:
        registry.execute(
            "INSERT INTO faults (vm_uuid, at, kind, points) VALUES (?, ?, 'timeout', 3)",
            (uuid, int(time.time())))
    mediator.start()
    device = mediator.connect(uuid)
    assert device.call(wire.OP_SPIN, [2_200_000]).code == wire.TIMEOUT
    assert history(mediator, uuid)[-1][2] == "limit 2000 ms"
    device.works()
    harness.wait_for(lambda: history(mediator, uuid)[-1][0] == "recovered", "the recovery")
    mediator.kill()
    mediator.start()
    assert mediator.connect(uuid).call(wire.OP_SPIN, [2_200_000]).code == wire.OK

# SPDX-License-Identifier: MIT
"""Faults, points and quarantine, with the real programs.

The cpu backend's FAULT is a real SIGSEGV of the worker, its HANG a loop that ends only
with the worker.
"""
import collections
import os
import random
import signal
import subprocess
import time

import pytest

import mediator as harness
import wire
from paths import ADMIN

KILLS = 200
KILLS_SEED = 20
SWEEP_S = 0.04  # a fault is answered well within this


def faults_of(mediator, uuid):
    with mediator.registry() as registry:
        return registry.execute(
            "SELECT kind, points FROM faults WHERE vm_uuid = ? ORDER BY id", (uuid,)
        ).fetchall()


def stored(mediator, uuid):
    """(quarantined, error_count) as the registry has them."""
    with mediator.registry() as registry:
        return registry.execute(
            "SELECT quarantined, error_count FROM vms WHERE vm_uuid = ?", (uuid,)
        ).fetchone()


def fault(device):
    return device.call(wire.OP_FAULT)


def test_nine_faults_quarantine_and_the_tenth_job_is_refused(mediator):
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid, hello=True)
    for _ in range(9):
        assert fault(device).code == wire.CUDA
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    assert stored(mediator, uuid) == (1, 9)
    assert faults_of(mediator, uuid) == [("worker_death", 1)] * 9
    mediator.connect(other).works()
    assert stored(mediator, other) == (0, 0)


def test_three_timeouts_quarantine(new_mediator):
    mediator = new_mediator().start(job_timeout_ms=100)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    for _ in range(3):
        assert device.call(wire.OP_HANG).code == wire.TIMEOUT
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    assert faults_of(mediator, uuid) == [("timeout", 3)] * 3


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
        harness.wait_for(lambda: mediator.vm_status(uuid)["fault_points"] == 0, "forgetting")
    device.works()
    assert stored(mediator, uuid) == (0, 3)


def test_points_survive_a_restart(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=3)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    fault(device)
    fault(device)
    harness.wait_for(lambda: len(faults_of(mediator, uuid)) == 2, "two stored faults")
    mediator.kill()
    mediator.start(quarantine_threshold=3)
    assert mediator.vm_status(uuid)["fault_points"] == 2
    device = mediator.connect(uuid, hello=True)
    fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED


def test_cleared_the_next_job_runs(new_mediator):
    mediator = new_mediator().start(quarantine_threshold=1)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, hello=True)
    fault(device)
    assert device.call(wire.OP_NOP).type == wire.MSG_QUARANTINED
    subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket",
         mediator.admin_path, "clear-quarantine", f"--vm-uuid={uuid}"],
        check=True, capture_output=True)
    assert mediator.vm_status(uuid)["fault_points"] == 0
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
    harness.wait_for(lambda: stored(mediator, uuid)[0] == 1, "the quarantine in the registry")


@pytest.mark.skipif("VGPU_SLOW" in os.environ, reason="too slow under this tool")
def test_killed_around_the_write_it_is_never_lost_and_never_spurious(new_mediator):
    """
    The mediator is killed at 200 instants that sweep over a fault, the write of the
    quarantine that it brings, and the answer.
    """
    mediator = new_mediator()
    mediator.start(quarantine_threshold=1)
    uuid, bystander = mediator.add_vms(1, 2)
    mediator.kill()
    instants = [SWEEP_S * i / KILLS for i in range(KILLS)]
    random.Random(KILLS_SEED).shuffle(instants)
    seen = collections.Counter()
    for instant in instants:
        mediator.start(quarantine_threshold=1)
        device = mediator.connect(uuid)
        device.works()
        id_ = device.submit(wire.OP_FAULT)
        time.sleep(instant)
        mediator.signal(signal.SIGKILL)
        answered = bool(device.ended())
        mediator.wait()
        with mediator.registry() as registry:
            assert registry.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        quarantined, count = stored(mediator, uuid)
        assert (quarantined, count) in ((0, 0), (1, 1)), id_
        assert len(faults_of(mediator, uuid)) == count
        assert quarantined or not answered, f"answered and lost, killed after {instant} s"
        assert stored(mediator, bystander) == (0, 0)
        seen[(quarantined, answered)] += 1
        with mediator.registry() as registry:
            registry.execute("UPDATE vms SET quarantined = 0, error_count = 0")
            registry.execute("DELETE FROM faults")
    # The sweep has met what it is about: before, between and after.
    assert seen[(0, False)] and seen[(1, True)], seen
    print(seen)

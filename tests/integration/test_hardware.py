# SPDX-License-Identifier: MIT
"""Hardware that fails while VMs work: nobody gets points for it, and queued jobs stay.

The stand-in CUDA has the kernel of FAULT fail with any error that is asked for; the
stand-in NVML tells what the driver would.
"""
import pytest

import wire
from gpu_story import Story
from test_quarantine import history, points, stored

import mediator as harness

QUEUED = 20


class Case:
    """A VM on the stand-in GPU; FAULT raises @error there."""

    def __init__(self, mediator, error, **settings):
        self.mediator = mediator
        mediator.environment = {
            "VGPU_STANDIN_KERNEL": "vgpu_fault",
            "VGPU_STANDIN_THEN": str(error),
        }
        self.story = Story(mediator, **settings)
        self.device = self.story.device
        self.uuid = harness.uuid_of(1)

    def history(self):
        return [row[:3] for row in history(self.mediator, self.uuid)]

    def points(self):
        return points(self.mediator, self.uuid)

    def fails(self, error):
        answer = self.device.call(wire.OP_FAULT)
        assert (answer.code, answer.words[0]) == (wire.CUDA, error)

    def is_forgiven(self, error):
        detail = f"CUDA error {error}; forgiven: the hardware of GPU 0 failed"
        harness.wait_for(lambda: ("gpu_fault", 0, detail) in self.history(), "forgiveness")
        assert self.points() == 0


@pytest.fixture
def new_case(new_mediator):
    return lambda error, **settings: Case(new_mediator(), error, **settings)


@pytest.mark.parametrize("error", [214, 220, 802, 999])
def test_an_error_of_the_hardware_costs_no_points_and_no_queue(new_case, error):
    case = new_case(error)
    for count in range(1, 11):
        lost = case.device.submit(wire.OP_FAULT)
        queued = [case.device.submit(wire.OP_CUDA_KERNEL, [n, 1]) for n in range(QUEUED)]
        answers = case.device.answers(1 + QUEUED)
        assert (answers[lost].code, answers[lost].words[0]) == (wire.CUDA, error)
        # Only what was sent ahead is lost with the context.
        failed = [id_ for id_ in queued if answers[id_].code != wire.OK]
        assert len(failed) <= 3
        assert {answers[id_].code for id_ in failed} <= {wire.CONTEXT_LOST}
        assert stored(case.mediator, case.uuid) == (0, count)
    assert case.history() == [("gpu_fault", 0, f"CUDA error {error}")] * 10
    assert case.points() == 0
    assert case.mediator.vm_status(case.uuid)["faults"] == 10


def test_an_error_of_the_job_costs_one_point(new_case):
    case = new_case(719)
    case.fails(719)
    assert case.history() == [("gpu_fault", 1, "CUDA error 719")]
    assert case.points() == 1


def test_a_fault_just_before_a_hardware_error_is_forgiven(new_case):
    """What looks like the job's own doing was a memory error, as Xid 48 tells a moment later."""
    case = new_case(719)
    case.fails(719)
    case.story.tell("xid 48")
    case.is_forgiven(719)
    case.mediator.says("forgiven 1 point: the hardware of GPU 0 failed just then")
    case.mediator.says("a fresh context works")
    case.story.kill_and_start()
    assert case.points() == 0


def test_a_quarantine_by_the_hardware_stays_and_is_told(new_case):
    case = new_case(719, quarantine_threshold=1)
    case.fails(719)
    assert case.device.call(wire.OP_NOP).code == wire.QUARANTINED
    case.story.tell("xid 94")
    case.is_forgiven(719)
    case.mediator.says("its quarantine stays, but may be the hardware's doing")
    assert case.device.call(wire.OP_NOP).code == wire.QUARANTINED
    assert stored(case.mediator, case.uuid) == (1, 1)


def test_a_hang_while_the_gpu_dies_costs_no_points(new_case):
    case = new_case(719, job_timeout_ms=2000)
    hanging = case.device.submit(wire.OP_HANG)
    case.story.tell("xid 119", "lost")
    answer = case.device.answer()
    assert (answer.id, answer.code) == (hanging, wire.TIMEOUT)
    assert case.history() == [("timeout", 0, "limit 2000 ms")]
    assert case.points() == 0
    # No points, and so no short limit.
    case.story.tell("back")
    harness.wait_for(lambda: "lost" not in case.story.codes(), "the return")
    case.mediator.call("resume", by="a test")
    case.story.state_becomes("ok")
    case.device.works()


def test_a_hang_on_a_drained_gpu_costs_points(new_case):
    """An operator's drain says nothing about the hardware."""
    case = new_case(719, job_timeout_ms=1000)
    hanging = case.device.submit(wire.OP_HANG)
    harness.wait_for(
        lambda: case.mediator.vm_status(case.uuid)["in_flight"] == 1, "the hanging job")
    case.mediator.call("drain", by="a test")
    answer = case.device.answer()
    assert (answer.id, answer.code) == (hanging, wire.TIMEOUT)
    assert case.history() == [("timeout", 3, "limit 1000 ms")]

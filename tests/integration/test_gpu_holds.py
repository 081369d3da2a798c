# SPDX-License-Identifier: MIT
"""What holds a GPU outlives the mediator: it is in the registry before anything is done about it."""

import time

import pytest

import mediator as harness
import wire
from gpu_story import Story, recorded, reset_command


def test_a_drain_by_hand_outlives_kill_9(new_story):
    story = new_story()
    before = time.time()
    story.mediator.call("drain", by="alice")
    after = time.time()
    for _ in range(2):
        story.kill_and_start()
        assert story.gpu()["health"] == "draining"
        asked = time.time()
        [reason] = [r for r in story.gpu()["reasons"] if r["code"] == "by_hand"]
        assert reason["message"] == "drained by alice"
        # Since when, to the second.
        assert asked - after - 1 <= reason["age_s"] <= time.time() - before + 1
        assert story.refused()
    story.mediator.call("resume")
    story.kill_and_start()
    story.state_becomes("ok")
    story.device.works()


def test_a_drain_by_hand_outlives_a_stop_with_the_cpu_too(mediator):
    uuid = mediator.add_vm()
    mediator.call("drain")
    mediator.stop()
    mediator.start()
    [gpu] = mediator.call("health")["gpus"]
    assert (gpu["health"], gpu["drained"]) == ("draining", True)
    mediator.call("resume")
    mediator.connect(uuid).works()


def test_a_failed_reset_outlives_kill_9(new_mediator):
    mediator = new_mediator()
    command = reset_command(mediator.directory, "exit 3")
    story = Story(mediator, reset_command=str(command))
    story.tell("xid 48")
    story.state_becomes("failed")
    recorded(mediator, "reset_failed", "xid_reset")
    (mediator.directory / "arguments").unlink()
    story.kill_and_start()
    assert story.gpu()["health"] == "failed"
    assert {"reset_failed", "xid_reset"} <= set(story.codes())
    assert "status 3" in str(story.gpu()["reasons"])
    assert story.refused()
    # It has failed already and is not tried again.
    harness.wait_for(lambda: story.gpu()["nvml"] == "up" and "temperature_c" in story.gpu(),
                     "a reading")
    assert not (mediator.directory / "arguments").exists()
    mediator.call("resume")
    story.kill_and_start()
    story.state_becomes("ok")
    story.device.works()


def test_a_reset_that_is_due_outlives_kill_9(new_mediator):
    """A job holds the reset up; the mediator dies before it comes to that."""
    mediator = new_mediator()
    command = reset_command(mediator.directory, "true")
    story = Story(mediator, reset_command=str(command))
    story.device.submit(wire.OP_SPIN, [20_000_000])
    harness.wait_for(lambda: mediator.vm_status(story.vm)["in_flight"], "the job")
    story.tell("xid 48")
    recorded(mediator, "xid_reset")
    assert not (mediator.directory / "arguments").exists()
    story.kill_and_start()
    mediator.says("reset and verified")
    assert (mediator.directory / "arguments").exists()
    story.state_becomes("ok")
    story.device.works()
    recorded(mediator)


def test_a_reset_begins_once_it_is_recorded_as_due(new_mediator):
    """Or else one that is broken off would be forgotten."""
    mediator = new_mediator()
    command = reset_command(mediator.directory, "true")
    story = Story(mediator, reset_command=str(command))
    with mediator.registry() as registry:
        registry.execute("BEGIN IMMEDIATE")
        story.tell("xid 48")
        mediator.says("is drained")
        mediator.ping()
        assert story.gpu()["reset"] is None
        assert not (mediator.directory / "arguments").exists()
    mediator.says("reset and verified")


def test_a_drain_that_cannot_be_recorded_is_said_and_tried_again(new_story):
    story = new_story()
    with story.mediator.registry() as registry:
        registry.execute("BEGIN IMMEDIATE")
        with pytest.raises(harness.Refusal, match="cannot be written"):
            story.mediator.call("drain")
    assert story.gpu()["health"] == "draining"
    recorded(story.mediator, "by_hand")

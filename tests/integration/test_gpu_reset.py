# SPDX-License-Identifier: MIT
"""GPUs that need a reset: drained, reset by the operator's command or by somebody else, verified."""

import signal
import subprocess

import pytest

import mediator as harness
from gpu_story import Story, metric, recorded, reset_command
from needs import as_root


@pytest.mark.parametrize("xid", [48, 79, 119])
def test_a_fatal_xid_drains_and_a_fresh_context_is_verified(new_story, xid):
    story = new_story()
    before = story.mediator.workers()[0]["pid"]
    story.tell(f"xid {xid}")
    story.mediator.says("reset the GPU (nvidia-smi --gpu-reset) once it is drained")
    story.mediator.says("is drained")
    story.mediator.says("not reset, but a fresh context works: back in service")
    story.state_becomes("ok")
    story.xid_counted(xid)
    story.says_over(f"Xid {xid}: ")
    story.device.works()
    assert story.mediator.workers()[0]["pid"] != before
    assert not harness.alive(before)


def test_the_operators_reset_command_runs_without_a_shell_and_is_verified(new_mediator):
    mediator = new_mediator()
    script = mediator.directory / "script"
    command = reset_command(mediator.directory, f"echo reset >> {script}")
    story = Story(mediator, reset_command=str(command))
    story.tell("reset_required")
    mediator.says("running " + str(command))
    story.state_becomes("ok")
    story.device.works()
    uuid = story.gpu()["uuid"]
    assert (mediator.directory / "arguments").read_text(encoding="ascii") == uuid + "\n"


def test_a_reset_command_that_fails_leaves_the_gpu_failed_until_it_is_resumed(new_mediator):
    mediator = new_mediator()
    command = reset_command(mediator.directory, "exit 3")
    story = Story(mediator, reset_command=str(command))
    story.tell("xid 48")
    story.state_becomes("failed")
    mediator.says("reset_command exited with status 3")
    assert story.refused()
    mediator.call("resume")
    story.state_becomes("ok")
    story.device.works()


def test_gpu_lost_and_back(new_story):
    """Nobody resumes it: that it answers again says enough."""
    story = new_story()
    before = story.mediator.workers()[0]["pid"]
    story.tell("lost")
    # A fresh context works in the stand-in, but that mends nothing, and is no reset.
    story.mediator.says("a fresh context works: that is not enough")
    story.state_becomes("failed")
    assert story.refused()
    assert not harness.alive(before)
    assert metric(story.mediator, "vgpu_gpu_resets_total") == 0
    story.tell("back")
    story.state_becomes("ok")
    story.says_over("the GPU is lost: it has fallen off the bus")
    assert metric(story.mediator, "vgpu_gpu_resets_total") == 1
    story.device.works()


def test_a_reset_that_someone_else_did_is_noticed(new_story):
    story = new_story()
    story.tell("reset_required")
    story.mediator.says("a fresh context works: that is not enough")
    story.state_becomes("failed")
    assert story.refused()
    assert metric(story.mediator, "vgpu_gpu_resets_total") == 0
    story.tell("reset")
    story.state_becomes("ok")
    story.says_over("the driver refuses the GPU until it is reset")
    assert metric(story.mediator, "vgpu_gpu_resets_total") == 1
    story.device.works()


@pytest.mark.parametrize("sign", ["rows_pending", "pages_pending"])
def test_someone_elses_reset_shows_where_the_driver_tells_no_wishes(new_mediator, sign):
    mediator = new_mediator()
    command = reset_command(mediator.directory, "exit 3")
    story = Story(mediator, reset_command=str(command))
    story.tell("recovery_action none", f"{sign} 1")
    story.state_becomes("degraded")
    story.tell("xid 48")
    story.state_becomes("failed")
    story.tell(f"{sign} 0")
    story.state_becomes("ok")
    assert metric(mediator, "vgpu_gpu_resets_total") == 1
    story.device.works()


def test_a_resume_is_no_reset(new_mediator):
    mediator = new_mediator()
    command = reset_command(mediator.directory, "exit 3")
    story = Story(mediator, reset_command=str(command))
    story.tell("xid 48")
    story.state_becomes("failed")
    mediator.call("resume")
    story.state_becomes("ok")
    assert metric(mediator, "vgpu_gpu_resets_total") == 0


def test_a_gpu_that_an_operator_has_is_not_reset(new_mediator):
    mediator = new_mediator()
    command = reset_command(mediator.directory, "true")
    story = Story(mediator, reset_command=str(command))
    mediator.call("drain", by="alice")
    harness.wait_for(lambda: story.gpu()["drained"], "the drain")
    story.tell("xid 48")
    story.xid_counted(48)
    assert story.gpu()["reset"] == "left to the operator"
    assert {"by_hand", "xid_reset"} <= set(story.codes())
    recorded(mediator, "by_hand", "xid_reset")
    story.kill_and_start()
    assert story.gpu()["reset"] == "left to the operator"
    mediator.call("resume")
    story.state_becomes("ok")
    story.device.works()
    assert not (mediator.directory / "arguments").exists()


def test_nvml_is_closed_while_the_reset_command_runs(new_mediator):
    mediator = new_mediator()
    directory = mediator.directory
    command = reset_command(directory, f"cat {directory}/script.users > {directory}/users")
    story = Story(mediator, reset_command=str(command))
    assert (directory / "script.users").read_text(encoding="ascii") == "1\n"
    story.tell("xid 48")
    mediator.says("reset and verified")
    assert (directory / "users").read_text(encoding="ascii") == "0\n"
    assert metric(mediator, "vgpu_gpu_resets_total") == 1
    story.state_becomes("ok")
    assert (directory / "script.users").read_text(encoding="ascii") == "1\n"


def test_a_probe_that_fails_after_the_reset_command_leaves_the_gpu_failed(new_mediator):
    mediator = new_mediator()
    libraries = mediator.directory / "lib"
    libraries.mkdir()
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        (libraries / library).symlink_to(harness.STANDIN / library)
    # The worker has a user of its own.
    mediator.directory.parent.chmod(0o755)
    command = reset_command(mediator.directory, f"rm {libraries}/libcuda.so.1")
    story = Story(mediator, libraries=libraries, reset_command=str(command))
    story.tell("xid 48")
    story.state_becomes("failed")
    assert "the probe of a worker exited with status 69" in str(story.gpu()["reasons"])
    assert metric(mediator, "vgpu_gpu_resets_total") == 0
    assert story.refused()


def test_two_gpus_are_reset_and_nvml_is_closed_for_each(new_mediator):
    mediator = new_mediator()
    directory = mediator.directory
    command = reset_command(directory, f"cat {directory}/script.users >> {directory}/users")
    story = Story(mediator, devices=2, reset_command=str(command), **{"pool.A.gpus": "0,1"})
    story.tell("gpu 1 xid 48", "xid 48")
    harness.wait_for(lambda: mediator.log().count("reset and verified") == 2, "both resets")
    assert (directory / "users").read_text(encoding="ascii") == "0\n0\n"
    for gpu in mediator.call("health")["gpus"]:
        assert gpu["xids"] == {"48": 1}
    story.state_becomes("ok")


# ---- Reset commands that do not end -------------------------------------------

# A script is no process alone: it has a child, and says both numbers.
HANGS = "sleep 1000 & echo $$ $! > {0}/pids.new; mv {0}/pids.new {0}/pids; wait"


def hanging_reset(mediator, body=HANGS, **settings):
    """A story in whose reset command something hangs, and the process ids of that."""
    directory = mediator.directory
    command = reset_command(directory, body.format(directory))
    story = Story(mediator, reset_command=str(command), **settings)
    story.tell("xid 48")
    harness.wait_for((directory / "pids").exists, "the reset command")
    pids = [int(pid) for pid in (directory / "pids").read_text(encoding="ascii").split()]
    assert all(map(harness.alive, pids))
    return story, pids


def gone(pids):
    harness.wait_for(lambda: not any(map(harness.alive, pids)), f"the end of {pids}")


def test_a_reset_command_that_takes_too_long_is_killed_with_its_children(new_mediator):
    story, pids = hanging_reset(new_mediator(), reset_timeout_s=1)
    story.state_becomes("failed")
    gone(pids)
    assert "reset_command did not end in time and was killed" in str(story.gpu()["reasons"])
    assert story.refused()


def test_a_reset_command_dies_with_the_mediator(new_mediator):
    mediator = new_mediator()
    story, pids = hanging_reset(mediator)
    reset_command(mediator.directory, "true")
    mediator.kill()
    gone(pids)
    story.script.write_text("")
    mediator.start(**story.settings)
    mediator.says("reset and verified")
    story.state_becomes("ok")
    mediator.connect(story.vm).works()


def test_a_second_sigterm_ends_a_reset_command(new_mediator):
    mediator = new_mediator()
    _, pids = hanging_reset(mediator)
    mediator.signal(signal.SIGTERM)
    mediator.says("stopping")
    mediator.stop()
    gone(pids)


def test_sigterm_lets_a_reset_end(new_mediator):
    mediator = new_mediator()
    wait = "echo $$ > {0}/pids; while [ ! -e {0}/go ]; do sleep 0.05; done"
    story, _ = hanging_reset(mediator, wait)
    mediator.signal(signal.SIGTERM)
    mediator.says("stopping")
    # The end is looked for every 20 ms; nothing of this is known to need less.
    with pytest.raises(subprocess.TimeoutExpired):
        mediator.process.wait(0.5)
    (mediator.directory / "go").touch()
    assert mediator.wait() == 0
    mediator.says("reset and verified")
    mediator.start(**story.settings)
    assert "xid_reset" not in story.codes()


@as_root
def test_no_work_while_an_old_reset_command_hangs_in_the_driver(new_mediator):
    mediator = new_mediator()
    story, pids = hanging_reset(mediator, reset_timeout_s=1)
    with harness.unreapable(pids[1]):
        mediator.says("survives SIGKILL: it hangs in the driver")
        story.state_becomes("failed")
        # An operator's word is not enough, and neither is another mediator.
        mediator.call("resume")
        assert set(story.codes()) - {"no_readings"} == {"reset_running"}
        assert story.refused()
        story.kill_and_start()
        assert "reset_running" in story.codes()
        assert story.refused()
    story.state_becomes("ok")
    story.device.works()

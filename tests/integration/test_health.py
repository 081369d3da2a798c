# SPDX-License-Identifier: MIT
"""Stories of GPUs, told by the stand-in NVML and watched through the mediator.

The stand-in obeys lines that are appended to a script; the mediator polls it ten times a
second here. What is checked is what an operator sees and what jobs meet.
"""
import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

import mediator as harness
import wire
from paths import ADMIN

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BUSY_GPU_RESET = 3
SETTINGS = {"backend": "cuda", "nvml_poll_ms": 100}
STATES = ("ok", "degraded", "unknown", "draining", "failed")
# Reasons that the log tells in other words: of people, workers and old resets; the beginning.
UNTOLD = ("by_hand", "worker_stuck", "reset_running", "no_readings")


class Story:
    """A mediator on stand-in GPUs, with one VM and its device."""

    def __init__(self, mediator, devices=1, libraries=harness.STANDIN, prefix=(), **settings):
        self.mediator = mediator
        self.script = mediator.directory / "script"
        self.script.touch()
        mediator.environment |= {
            "LD_LIBRARY_PATH": str(libraries),
            "VGPU_STANDIN_NVML_SCRIPT": str(self.script),
            "VGPU_STANDIN_DEVICES": str(devices),
        }
        self.settings = {**SETTINGS, **settings}
        mediator.start(prefix=prefix, **self.settings)
        self.vm = mediator.add_vm()
        self.device = mediator.connect(self.vm, hello=True)
        self.device.works()
        self.state_becomes("ok")

    def tell(self, *lines):
        with open(self.script, "a", encoding="utf-8") as script:
            script.write("\n".join(lines) + "\n")

    def kill_and_start(self):
        """kill -9, and a new mediator; the script begins anew with it."""
        self.mediator.kill()
        self.script.write_text("")
        self.mediator.start(**self.settings)
        self.device = self.mediator.connect(self.vm, hello=True)

    def gpu(self):
        return self.mediator.call("health")["gpus"][0]

    def codes(self):
        return [reason["code"] for reason in self.gpu()["reasons"]]

    def state_becomes(self, state):
        """And health, the log and the metrics agree on it."""
        harness.wait_for(lambda: self.told() == state, lambda: f"state {state}: {self.gpu()}")

    def told(self):
        """The state that health tells, unless the metrics tell another; its reasons are in the log."""
        gpu = self.gpu()
        states = {
            re.search('state="([a-z]+)"', line)[1]: int(line.rsplit(" ", 1)[1])
            for line in self.mediator.call("show-metrics")["text"].splitlines()
            if line.startswith("vgpu_gpu_health{") and gpu["uuid"] in line
        }
        if states != {state: int(state == gpu["health"]) for state in STATES}:
            return None
        log = self.mediator.log()
        for reason in gpu["reasons"]:
            if reason["code"] not in UNTOLD:
                level = "info" if reason["level"] == "ok" else "warning"
                line = f"{level}: GPU 0 ({gpu['uuid']}): {reason['message']}; {reason['remedy']}"
                assert line in log, f"not in the log: {line}"
        return gpu["health"]

    def says_over(self, message):
        """What was wrong is over, and the log says so, too."""
        self.mediator.says(f"info: GPU 0 ({self.gpu()['uuid']}): over: {message}")

    def xid_counted(self, number):
        """And told, and in the metrics."""
        harness.wait_for(lambda: self.gpu()["xids"].get(str(number)), f"Xid {number}")
        assert f"GPU 0: Xid {number}: " in self.mediator.log()
        uuid = self.gpu()["uuid"]
        line = f'vgpu_gpu_xid_errors_total{{gpu_uuid="{uuid}",xid="{number}"}} 1\n'
        assert line in self.mediator.call("show-metrics")["text"]

    def refused(self):
        answer = self.device.call(wire.OP_NOP)
        return answer.type == wire.MSG_BUSY and answer.words[0] == BUSY_GPU_RESET


@pytest.fixture
def new_story(new_mediator):
    return lambda **settings: Story(new_mediator(), **settings)


def test_overheating_and_recovery(new_story):
    story = new_story()
    story.tell("temperature 99")
    story.state_becomes("degraded")
    assert story.codes() == ["temperature"]
    story.mediator.says("as hot as it may get: 99 degrees Celsius; check fans and air flow")
    assert metric(story.mediator, "vgpu_gpu_temperature_celsius") == 99
    story.device.works()
    # Not yet cool enough.
    story.tell("temperature 86")
    harness.wait_for(lambda: story.gpu()["temperature_c"] == 86, "the reading")
    assert story.codes() == ["temperature"]
    story.tell("temperature 60")
    story.state_becomes("ok")
    assert story.codes() == []
    story.says_over("the GPU is as hot as it may get: 99 degrees Celsius")


def test_row_remap_pending(new_story):
    story = new_story()
    story.tell("rows_pending 1")
    story.state_becomes("degraded")
    [reason] = story.gpu()["reasons"]
    assert reason["code"] == "row_remap_pending"
    assert "reset" in reason["remedy"]
    story.device.works()
    # Somebody resets it, and there is nothing that waits for it any more.
    story.tell("reset")
    story.state_becomes("ok")
    story.says_over("bad rows of memory wait for a reset to be remapped")
    assert metric(story.mediator, "vgpu_gpu_resets_total") == 1


@pytest.mark.parametrize("xid", [13, 31, 43, 45])
def test_a_jobs_own_xid_is_counted_and_not_held_against_the_gpu(new_story, xid):
    story = new_story()
    story.tell(f"xid {xid}")
    story.xid_counted(xid)
    assert story.gpu()["health"] == "ok"


def test_a_contained_memory_error_degrades(new_story):
    story = new_story()
    story.tell("xid 94")
    story.state_becomes("degraded")
    story.xid_counted(94)
    assert story.codes() == ["xid_contained"]
    story.device.works()


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


def reset_command(directory, body):
    path = directory / "reset"
    path.write_text(f"#!/bin/sh\necho \"$@\" > {directory}/arguments\n{body}\n", encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


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


def metric(mediator, name):
    for line in mediator.call("show-metrics")["text"].splitlines():
        if line.startswith(name):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no metric {name}")


def test_nvml_hangs_and_nobody_waits(new_story):
    story = new_story()
    story.tell("hang")
    story.state_becomes("unknown")
    assert story.gpu()["nvml"] == "silent"
    story.mediator.says("has not returned for 5.0 s. Jobs go on; the health of the GPUs is unknown")
    assert metric(story.mediator, "vgpu_nvml_up") == 0
    story.device.works()
    story.tell("go")
    story.state_becomes("ok")
    story.mediator.says("NVML is up: it answers again")
    assert metric(story.mediator, "vgpu_nvml_up") == 1


# What other programs do to the mediator is none of its stalls: here it goes before them, its
# threads and children do not. What the machine itself does to whoever goes first is seen
# by a program on each processor that does nothing but wait.
FIRST = ("chrt", "--reset-on-fork", "--fifo", "1")
WAITER = """
import os, select, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
worst, due = 0, time.monotonic()
while not select.select([sys.stdin], [], [], max(due + 0.002 - time.monotonic(), 0))[0]:
    due += 0.002
    worst = max(worst, time.monotonic() - due)
    due = max(due, time.monotonic() - 0.002)
print(int(worst * 1e6))
"""
STALL_MAX_US = 10_000
LAG_BEAT_US = 2_000  # a shorter stall may go unseen


@contextlib.contextmanager
def hiccups():
    """Gives a function that ends the waiting and returns the worst hiccup, in us."""
    waiters = [
        subprocess.Popen([*FIRST, sys.executable, "-c", WAITER, str(cpu)], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for cpu in os.sched_getaffinity(0)
    ]
    yield lambda: max(int(waiter.communicate()[0]) for waiter in waiters)
    for waiter in waiters:
        waiter.communicate()


def test_nvml_hangs_for_20_s_and_the_event_loop_does_not(new_mediator):
    if subprocess.run([*FIRST, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to go before other programs")
    mediator = new_mediator()
    story = Story(mediator, prefix=FIRST)
    with contextlib.ExitStack() as stack:
        worst_hiccup = stack.enter_context(hiccups())
        neighbours = [stack.enter_context(harness.Neighbour(mediator, uuid))
                      for uuid in mediator.add_vms(2, 3, 4, 5)]
        story.tell("hang 20")
        began = time.monotonic()
        story.state_becomes("unknown")
        assert story.gpu()["nvml"] == "silent"
        # Whoever looks makes work, too.
        while story.gpu()["nvml"] == "silent":
            assert mediator.call("show-metrics")["text"]
        assert time.monotonic() - began > 19
        jobs = sum(neighbour.jobs for neighbour in neighbours)
        stall_us = mediator.status()["longest_stall_us"]
        hiccup_us = worst_hiccup()
    print(f"longest stall {stall_us} us beside {jobs} jobs, of the machine {hiccup_us} us")
    # Each job comes and ends, and each of both is decided on.
    assert metric(mediator, "vgpu_scheduler_decision_seconds_count") >= 2 * jobs
    assert metric(mediator, "vgpu_event_loop_lag_seconds_count") > 1000
    assert stall_us + LAG_BEAT_US < STALL_MAX_US + hiccup_us


def test_nvml_hangs_for_good_and_the_mediator_still_ends(new_story):
    story = new_story()
    story.tell("hang")
    story.state_becomes("unknown")
    story.mediator.stop()


def test_no_nvml(new_mediator):
    mediator = new_mediator()
    only_cuda = mediator.directory / "lib"
    only_cuda.mkdir()
    # The worker has a user of its own.
    mediator.directory.parent.chmod(0o755)
    (only_cuda / "libcuda.so.1").symlink_to(harness.STANDIN / "libcuda.so.1")
    mediator.environment = {"LD_LIBRARY_PATH": str(only_cuda)}
    mediator.start(**SETTINGS)
    device = mediator.connect(mediator.add_vm())
    device.works()
    gpu = mediator.call("health")["gpus"][0]
    assert (gpu["health"], gpu["nvml"]) == ("unknown", "down")
    mediator.says("libnvidia-ml.so.1")


def test_drain_and_resume_by_hand(new_story):
    story = new_story()
    program = ADMIN

    def admin(*arguments):
        return json.loads(subprocess.run(
            [program, "--admin-socket", story.mediator.admin_path, "--json", *arguments],
            check=True, capture_output=True,
            env={**os.environ, "SUDO_USER": "alice"}).stdout)

    assert admin("drain")["health"] == "draining"
    harness.wait_for(lambda: story.gpu()["drained"], "the drain")
    assert story.mediator.workers() == []
    assert story.refused()
    reason = admin("health")["gpus"][0]["reasons"][0]
    assert (reason["code"], reason["message"]) == ("by_hand", "drained by alice")
    assert admin("resume")["health"] == "ok"
    story.device.works()


def test_readings_are_told(new_story):
    story = new_story()
    story.tell("temperature 61")
    harness.wait_for(lambda: story.gpu().get("temperature_c") == 61, "the reading")
    assert metric(story.mediator, "vgpu_gpu_temperature_celsius") == 61


def test_health_as_people_read_it(new_story):
    story = new_story()
    [worker] = story.mediator.workers()
    story.tell("memory_busy 42", "clock_reasons 0x48", "ecc_corrected 5", "ecc_uncorrected 2",
               "rows_corrected 3", "rows_uncorrected 4", "rows_pending 1", "pages_corrected 6",
               "pages_uncorrected 7", "pages_pending 1", "xid 31", "xid 31", "xid 48",
               f"processes {worker['pid']}:{520 << 20} 1:{64 << 20}")
    story.mediator.call("drain", by="alice")

    def lines():
        text = subprocess.run([ADMIN, "--admin-socket", story.mediator.admin_path, "health"],
                              check=True, capture_output=True, text=True).stdout
        assert max(map(len, text.splitlines())) <= 120, text
        text = re.sub(r", for [0-9.]+ s\n +->", ", for a while ->", text)
        return [line.strip() for line in text.split("GPU 0:\n", 1)[1].splitlines()]

    expected = [
        "Why        drained by alice, for a while -> "
        "vgpu-admin resume gives it back; it is not reset meanwhile",
        "Why        Xid 48: memory error that ECC cannot correct, for a while -> "
        "reset the GPU (nvidia-smi --gpu-reset) once it is drained",
        "Service    drained, no work on it; reset: left to the operator",
        f"UUID       {story.gpu()['uuid']}",
        "NVML       up",
        "Memory     controller busy 42% of the time",
        "Clocks     limited by the hardware, heat (hardware)",
        "ECC errors corrected 5 since the last reset (5 ever), "
        "uncorrected 2 since the last reset (2 ever)",
        "Remapped   for corrected errors 3, for uncorrected 4; more wait for a reset",
        "Retired    for corrected errors 6, for uncorrected 7; more wait for a reset",
        "Xids       31: 2, 48: 1",
        f"Process    {worker['pid']}: 520 MiB",
        "Process    1: 64 MiB",
    ]
    harness.wait_for(lambda: set(expected) <= set(lines()), f"{expected} and not {lines()}")


MIB = 1 << 20


def test_memory_of_each_process_is_told_and_whose_it_is(new_story):
    story = new_story()
    [worker] = story.mediator.workers()
    story.tell(f"processes {worker['pid']}:{520 * MIB} 1:{64 * MIB}")
    harness.wait_for(lambda: len(story.gpu().get("processes", [])) == 2, "two processes")
    ours, other = story.gpu()["processes"]
    assert (ours["vm_uuid"], ours["mib"]) == (worker["vm_uuid"], 520)
    assert (other["pid"], other["vm_uuid"]) == (1, None)
    # What a context takes is learned from a worker that has been quiet for a while.
    harness.wait_for(lambda: story.gpu()["processes"][0]["expected_mib"] == 520, "the context")
    # Its jobs' memory it tells itself: three matrices of 1024 x 1024.
    assert story.device.call(wire.OP_SGEMM, [1024, 1]).code == wire.OK
    harness.wait_for(lambda: story.gpu()["processes"][0]["expected_mib"] == 532, "its word")
    # Another program is noted, and so is a worker that holds far more than that.
    story.tell(f"processes {worker['pid']}:{2000 * MIB} 1:{64 * MIB}")
    harness.wait_for(lambda: all(p["note"] for p in story.gpu()["processes"]), "both notes")
    ours, other = story.gpu()["processes"]
    assert "holds 2000 MiB" in ours["note"] and "make 532" in ours["note"]
    assert "none of ours" in other["note"]
    for note in (ours["note"], other["note"]):
        assert f"warning: GPU 0: {note}" in story.mediator.log()
    assert metric(story.mediator, "vgpu_gpu_foreign_processes") == 1
    assert metric(story.mediator, "vgpu_gpu_foreign_memory_bytes") == 64 * MIB
    assert metric(story.mediator, "vgpu_worker_memory_bytes") == 2000 * MIB
    assert metric(story.mediator, "vgpu_worker_memory_expected_bytes") == 532 * MIB
    # Notes for people: the GPU is well, and works.
    assert story.gpu()["health"] == "ok"
    story.device.works()
    story.tell(f"processes {worker['pid']}:{532 * MIB}")
    story.mediator.says(f"over: worker {worker['pid']} holds too much")
    story.mediator.says("over: process 1 beside ours")
    assert metric(story.mediator, "vgpu_gpu_foreign_processes") == 0


# ---- What a reset goes through ------------------------------------------------


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


# ---- Across restarts ----------------------------------------------------------


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


def recorded(mediator, *codes):
    """Waits until the registry has just these as what holds a GPU."""

    def rows():
        with mediator.registry() as registry:
            return {code for (code,) in registry.execute("SELECT code FROM gpu_holds")}

    harness.wait_for(lambda: rows() == set(codes), f"{codes} in the registry")

# SPDX-License-Identifier: MIT
"""NVML that hangs or is missing: jobs go on, and the event loop waits for nobody."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

import mediator as harness
from gpu_story import SETTINGS, Story, metric


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

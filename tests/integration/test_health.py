# SPDX-License-Identifier: MIT
"""How a GPU is: what NVML reads becomes a state, with reasons that an operator can act on."""

import json
import os
import re
import subprocess

import pytest

import mediator as harness
import wire
from gpu_story import health_text, metric
from paths import ADMIN


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
        text = health_text(story.mediator)
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

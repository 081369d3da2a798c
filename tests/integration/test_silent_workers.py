# SPDX-License-Identifier: MIT
"""Workers that are there and do nothing: stopped, silent at their start, or past every kill."""
import os
import signal

import mediator as harness
import wire
from gpu_story import Story
from test_quarantine import history


def test_a_stopped_worker_with_a_job_is_over_its_limit(new_mediator):
    """It is the VM's worker, whoever stopped it: a timeout like any other, points included."""
    mediator = new_mediator().start(job_timeout_ms=500)
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    device.works()
    with harness.Neighbour(mediator, other):
        worker = mediator.worker_pid(uuid)
        os.kill(worker, signal.SIGSTOP)
        assert device.call(wire.OP_NOP).code == wire.TIMEOUT
        device.works()
        assert not harness.alive(worker)
    assert history(mediator, uuid)[0] == ("timeout", 3, "limit 500 ms", None)


def test_a_stopped_worker_without_a_job_is_ended(new_mediator):
    mediator = new_mediator().start(worker_idle_s=1)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    worker = mediator.worker_pid(uuid)
    os.kill(worker, signal.SIGSTOP)
    harness.wait_for(lambda: not harness.alive(worker), "the end of the worker")
    device.works()
    assert history(mediator, uuid) == []


def test_a_worker_that_is_silent_at_its_start(new_mediator, programs):
    """After 20 s nobody waits for it any more."""
    mediator = new_mediator()
    mediator.environment = {"LD_LIBRARY_PATH": str(harness.STANDIN)}
    mediator.start(backend="cuda")
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    programs.script(f'VGPU_STANDIN_INIT_HANG=1 exec "{harness.WORKER}" "$@"')
    waiting = device.submit(wire.OP_NOP)
    silent = harness.wait_for(
        lambda: [w["pid"] for w in mediator.workers() if w["pid"]], "a worker that starts")[0]
    answer = device.answer()
    assert (answer.id, answer.code) == (waiting, wire.UNAVAILABLE)
    assert not harness.alive(silent)
    assert mediator.vm_status(uuid)["failed_starts"] == 1
    assert history(mediator, uuid) == []
    programs.works()
    device.works()


def test_a_worker_that_survives_sigkill(new_mediator):
    """
    Its GPU gets no work until it has ended; a reset does not wait for it, since that may be
    what ends it; and once it has, the GPU is back by itself.
    """
    story = Story(new_mediator(), job_timeout_ms=300)
    worker = story.mediator.worker_pid(story.vm)
    with harness.unreapable(worker):
        assert story.device.call(wire.OP_HANG).code == wire.TIMEOUT
        story.mediator.says("survives SIGKILL")
        harness.wait_for(lambda: story.gpu()["drained"], "the drain")
        assert "worker_stuck" in story.codes()
        assert story.mediator.vm_status(story.vm)["worker"] == "stuck"
        assert [(w["pid"], w["state"]) for w in story.mediator.workers()] == [(worker, "stuck")]
        assert story.refused()
        story.tell("xid 119")
        story.mediator.says("a fresh context works")
        harness.wait_for(lambda: story.codes() == ["worker_stuck"], "the worker alone")
        assert story.refused()
    story.state_becomes("ok")
    story.mediator.says("let go of its last stuck worker")
    story.device.works()

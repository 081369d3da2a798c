# SPDX-License-Identifier: MIT
"""One of several GPUs goes wrong: what becomes of its VMs, and of those of the others."""

import re

import mediator as harness
import wire
from gpu_story import Story, health_text, reset_command


class Pair:
    """Two GPUs, each with a VM; the reset of one lasts until it is let go."""

    def __init__(self, mediator, **pools):
        self.mediator = mediator
        directory = mediator.directory
        command = reset_command(directory, f"while [ ! -e {directory}/go ]; do sleep 0.05; done")
        self.story = Story(mediator, devices=2, reset_command=str(command), **pools)
        self.vm, self.device = self.story.vm, self.story.device

    def let_go(self):
        (self.mediator.directory / "go").touch()

    def gpu_of(self, uuid):
        return self.mediator.vm_status(uuid)["gpu"]

    def is_drained(self, gpu):
        return self.mediator.call("health")["gpus"][gpu]["drained"]


def metric_of(mediator, name, uuid, state=None):
    """The value of a GPU's metric, with the label `state` if there is one; None: it is left out."""
    label = f',state="{state}"' if state else ""
    found = re.search(f'^{name}{{gpu_uuid="{uuid}"{label}}} (.*)$',
                      mediator.call("show-metrics")["text"], re.MULTILINE)
    return found and found[1]


def test_a_failing_gpu_leaves_the_vms_of_another_pool_alone(new_mediator):
    mediator = new_mediator()
    pair = Pair(mediator, **{"pool.A.gpus": "0", "pool.B.gpus": "1"})
    other = mediator.add_vm(2, pool_id="B")
    with harness.Neighbour(mediator, other) as neighbour:
        pair.story.tell("xid 48")
        harness.wait_for(lambda: pair.is_drained(0), "the drain")
        assert pair.story.refused()
        assert not pair.is_drained(1)
        neighbour.works()
        pair.let_go()
        pair.story.state_becomes("ok")
        pair.device.works()
    assert mediator.vm_status(other)["jobs_failed"] == 0


def test_the_other_gpus_during_a_reset(new_mediator):
    """NVML is closed for all: their values are left out and it says why; nobody is alarmed."""
    mediator = new_mediator()
    pair = Pair(mediator, **{"pool.A.gpus": "0", "pool.B.gpus": "1"})

    def other():
        return mediator.call("health")["gpus"][1]

    harness.wait_for(lambda: other()["health"] == "ok" and "temperature_c" in other(), "readings")
    pair.story.tell("xid 48")
    mediator.says("GPU 0: running")
    gpu = other()
    assert (gpu["health"], gpu["nvml"], gpu["reset"]) == ("ok", "released", None)
    assert "temperature_c" not in gpu and "processes" not in gpu
    assert [(reason["code"], reason["level"]) for reason in gpu["reasons"]] == [
        ("readings_paused", "ok")
    ]
    text = health_text(mediator)
    assert "not looked at: NVML is closed while a GPU is reset" in text
    assert "none needed: it ends with that reset" in text
    assert metric_of(mediator, "vgpu_gpu_health", gpu["uuid"], "ok") == "1"
    assert metric_of(mediator, "vgpu_gpu_temperature_celsius", gpu["uuid"]) is None
    pair.let_go()
    pair.story.state_becomes("ok")
    harness.wait_for(lambda: "temperature_c" in other(), "readings again")
    assert other()["reasons"] == []
    # In all that time.
    log = mediator.log()
    assert f"info: GPU 1 ({gpu['uuid']}): not looked at" in log
    assert f"warning: GPU 1 ({gpu['uuid']})" not in log


def test_vms_of_a_drained_gpu_work_on_another_of_their_pool(new_mediator):
    """They go there by themselves, and come back when theirs works again."""
    mediator = new_mediator()
    pair = Pair(mediator, **{"pool.A.gpus": "0,1"})
    other = mediator.add_vm(2)
    assert (pair.gpu_of(pair.vm), pair.gpu_of(other)) == (0, 1)
    with harness.Neighbour(mediator, other) as neighbour:
        pair.story.tell("xid 48")
        # Whoever asks meanwhile is told to come back.
        harness.wait_for(lambda: pair.gpu_of(pair.vm) == 1, "the move")
        pair.device.works()
        assert pair.is_drained(0) and not pair.is_drained(1)
        assert [worker["gpu"] for worker in mediator.workers()] == [1, 1]
        mediator.says("GPU 0: running")
        # It is busy when its own GPU comes back, and loses nothing.
        jobs = [pair.device.submit(wire.OP_SPIN, [100_000]) for _ in range(5)]
        pair.let_go()
        mediator.says("GPU 0: reset and verified")
        answers = pair.device.answers(len(jobs))
        assert [answers[job].code for job in jobs] == [wire.OK] * len(jobs)
        harness.wait_for(lambda: pair.gpu_of(pair.vm) == 0, "the return")
        pair.device.works()
        neighbour.works()
    assert pair.gpu_of(other) == 1
    assert mediator.vm_status(other)["jobs_failed"] == 0


def test_where_all_gpus_of_a_pool_are_drained_its_jobs_are_refused(new_mediator):
    mediator = new_mediator()
    pair = Pair(mediator, **{"pool.A.gpus": "0,1"})
    for gpu in (0, 1):
        mediator.call("drain", gpu=gpu)
    harness.wait_for(lambda: pair.is_drained(0) and pair.is_drained(1), "both drains")
    assert pair.story.refused()
    assert mediator.workers() == []
    mediator.call("resume", gpu=1)
    pair.device.works()
    assert [worker["gpu"] for worker in mediator.workers()] == [1]


def uuid_of_gpu(number):
    return f"GPU-5747414e-4400-0000-0000-{number:012x}"


def test_a_gpu_that_is_gone_at_the_start_keeps_none_of_the_others_down(new_mediator):
    """Named by UUID it has failed, and the rest is served; back, an operator gives it work."""
    mediator = new_mediator()
    pools = {"pool.A.gpus": uuid_of_gpu(0), "pool.B.gpus": uuid_of_gpu(1)}
    story = Story(mediator, devices=1, **pools)
    assert f"pool B: GPU {uuid_of_gpu(1)} cannot be used" in mediator.log()
    other = mediator.add_vm(2, pool_id="B")
    device = mediator.connect(other, hello=True)

    def codes():
        return {reason["code"] for reason in mediator.call("health")["gpus"][1]["reasons"]}

    # It is tried once more, as after any reset.
    harness.wait_for(lambda: {"no_context", "reset_failed"} <= codes(), "its end")
    assert mediator.call("health")["gpus"][1]["health"] == "failed"
    assert device.call(wire.OP_NOP).type == wire.MSG_BUSY
    story.device.works()
    mediator.stop()
    mediator.environment["VGPU_STANDIN_DEVICES"] = "2"
    mediator.start(**story.settings)
    mediator.call("resume", gpu=1)
    mediator.connect(other).works()
    assert codes() <= {"no_readings"}


def test_a_pool_without_one_of_its_gpus_works_on_the_other(new_mediator):
    mediator = new_mediator()
    mediator.environment = {"LD_LIBRARY_PATH": str(harness.STANDIN)}
    mediator.start(backend="cuda", **{"pool.A.gpus": f"{uuid_of_gpu(1)},{uuid_of_gpu(0)}"})
    mediator.connect(mediator.add_vm()).works()
    assert [worker["gpu"] for worker in mediator.workers()] == [1]
    assert mediator.call("health")["gpus"][0]["health"] == "failed"

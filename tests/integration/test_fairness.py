# SPDX-License-Identifier: MIT
"""Who gets how much of the GPU, with the real programs, where somebody changes, lies or starts.

Shares are looked at while every VM still has jobs that wait, all of them sent beforehand:
then they are the scheduler's doing, and how busy the machine is does not matter.
"""
import itertools
import subprocess
import time

import pytest

import mediator as harness
import wire
from paths import ADMIN
from test_mediator_workers import hostile, programs  # pylint: disable=unused-import

HOUR_MS = 3_600_000
JOBS = 300
SPIN_US = 2000
TURN_S = 0.1  # that and more; 8 ms where nobody disturbs


def admin(mediator, *arguments):
    subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, *arguments],
        capture_output=True, timeout=60, check=True)


def backlog(mediator, uuid, opcode=wire.OP_SPIN):
    """A device that has sent JOBS jobs."""
    device = mediator.connect(uuid)
    device.submit_all({id_: (opcode, [SPIN_US]) for id_ in range(1, JOBS + 1)})
    return device


def charged(mediator, uuids):
    """{uuid: seconds charged} now, as long as all of them have jobs that wait, else None."""
    vms = {vm["vm_uuid"]: vm for vm in mediator.status()["vms"]}
    if not all(vms[uuid]["queue_depth"] > 8 for uuid in uuids):
        return None
    return {uuid: vms[uuid]["charged_s"] for uuid in uuids}


def shared_out(mediator, uuids, meanwhile=lambda: None, seconds=0.6):
    """
    What the VMs have been charged once it is that much in all, from a moment on at which each
    has been charged something; meanwhile() is called again and again.
    """
    def begun():
        now = charged(mediator, uuids)
        return now if now and min(now.values()) > 0 else None

    before = harness.wait_for(begun, "a turn of each VM")
    last = {uuid: 0 for uuid in uuids}
    while sum(last.values()) < seconds:
        meanwhile()
        now = charged(mediator, uuids)
        assert now, "a VM has run out of jobs: nothing is known of shares"
        last = {uuid: now[uuid] - before[uuid] for uuid in uuids}
    return last


def all_done(device):
    answers = device.answers(JOBS)
    assert list(answers) == list(range(1, JOBS + 1)), "they are answered in their order"
    assert {answer.code for answer in answers.values()} == {wire.OK}


class Toggle:
    """Changes a VM's weight and priority again and again, and knows what that makes of its share."""

    CHANGES = (("weight", 2, 4), ("priority", 0, 2), ("weight", 1, 1), ("priority", 1, 2))

    def __init__(self, mediator, uuid, others_claim):
        self.mediator, self.uuid, self.others_claim = mediator, uuid, others_claim
        self.changes = itertools.cycle(self.CHANGES)
        self.since = []  # (when, claim)

    def __call__(self):
        name, value, claim = next(self.changes)
        self.mediator.set_vm(self.uuid, **{name: value})
        self.since.append((time.monotonic(), claim))

    def mean_share(self):
        spans = [(b[0] - a[0], a[1]) for a, b in zip(self.since, self.since[1:])]
        return sum(span * claim / (claim + self.others_claim) for span, claim in spans) / sum(
            span for span, _ in spans)


def test_changes_lose_no_job_and_grant_no_windfall(new_mediator):
    """Whoever's claim goes up and down all the time gets what is due to it from moment to moment."""
    mediator = new_mediator().start(job_timeout_ms=HOUR_MS, quantum_us=10000)
    busy, other = mediator.add_vms(1, 2)
    devices = [backlog(mediator, uuid) for uuid in (busy, other)]
    toggle = Toggle(mediator, busy, others_claim=2)
    had = shared_out(mediator, [busy, other], toggle)
    assert had[busy] <= toggle.mean_share() * sum(had.values()) + TURN_S
    for device in devices:
        all_done(device)


def test_changes_by_command_lose_no_job_on_either_gpu(new_mediator):
    """To the other pool's GPU and back, with another weight and priority each time."""
    if not (harness.STANDIN / "libcuda.so.1").exists():
        pytest.skip("the stand-in for CUDA is not built")
    mediator = new_mediator()
    mediator.environment = {"LD_LIBRARY_PATH": str(harness.STANDIN), "VGPU_STANDIN_DEVICES": "2"}
    mediator.start(backend="cuda", job_timeout_ms=HOUR_MS,
                   **{"pool.A.gpus": "0", "pool.B.gpus": "1"})
    mover, one, two = mediator.add_vm(1), mediator.add_vm(2), mediator.add_vm(3, pool_id="B")
    devices = [backlog(mediator, uuid) for uuid in (mover, one, two)]
    vm = f"--vm-uuid={mover}"
    for pool, gpu, weight, priority in (("B", 1, "3", "high"), ("A", 0, "1.5", "low")):
        done = mediator.vm_status(mover)["jobs_done"]
        harness.wait_for(lambda: mediator.vm_status(mover)["jobs_done"] > done, "a job of its own")
        admin(mediator, "set-pool", vm, f"--pool={pool}")
        admin(mediator, "set-weight", vm, f"--weight={weight}")
        admin(mediator, "set-priority", vm, f"--priority={priority}")
        harness.wait_for(lambda: mediator.vm_status(mover)["gpu"] == gpu, "the other GPU")
        status = mediator.vm_status(mover)
        assert (status["pool"], status["weight"], status["priority"]) == (pool, float(weight), priority)
    assert mediator.vm_status(mover)["queue_depth"] > 0, "too few jobs: nothing has moved"
    for device in devices:
        all_done(device)


def test_a_worker_that_flatters_gains_nothing(new_mediator, programs):
    """It says of each job that it took no time; what is charged is the mediator's own clock."""
    mediator = new_mediator().start(job_timeout_ms=HOUR_MS)
    liar, honest = mediator.add_vms(1, 2)
    hostile(programs, "flatters")
    lies = backlog(mediator, liar)
    mediator.worker_pid(liar)
    programs.works()
    truth = backlog(mediator, honest)
    had = shared_out(mediator, [liar, honest])
    assert had[liar] <= sum(had.values()) / 2 + TURN_S
    assert mediator.vm_status(liar)["job_average_us"] < SPIN_US, "it has not lied"
    all_done(lies)
    all_done(truth)


def test_a_slow_start_costs_nobody_else_anything(new_mediator, programs, directory):
    """While a worker starts its VM has no turn: others run, and it is charged nothing."""
    mediator = new_mediator().start()
    slow, other = mediator.add_vms(1, 2)
    with harness.Neighbour(mediator, other) as neighbour:
        programs.script(f'while ! [ -e "{directory}/go" ]; do sleep 0.01; done\n'
                        f'exec "{harness.WORKER}" "$@"')
        device = mediator.connect(slow)
        device.submit_all({id_: (wire.OP_NOP, ()) for id_ in range(1, 5)})
        harness.wait_for(lambda: len(mediator.workers()) == 2, "a worker that starts")
        for _ in range(20):
            neighbour.works()
            status = mediator.vm_status(slow)
            assert (status["charged_s"], status["in_flight"], status["queue_depth"]) == (0, 0, 4)
        (directory / "go").touch()
        assert {answer.code for answer in device.answers(4).values()} == {wire.OK}

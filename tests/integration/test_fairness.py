# SPDX-License-Identifier: MIT
"""Who gets how much of the GPU, with the real programs, where somebody changes, lies or starts.

Shares are looked at while every VM still has jobs that wait, all of them sent beforehand:
then they are the scheduler's doing. Where the machine holds up one job, its VM is charged for
that and has done no more for it; where it holds up another's, a VM does more and is charged
no more. So whoever gets too much has both.
"""
import itertools
import subprocess

import pytest

import mediator as harness
import wire
from paths import ADMIN
from worker_programs import hostile

HOUR_MS = 3_600_000
JOBS = 400
SPIN_US = 2000
TURN_S = 0.1  # that and more: a quantum and two jobs where nobody disturbs


def admin(mediator, *arguments):
    subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, *arguments],
        capture_output=True, timeout=60, check=True)


def backlog(mediator, uuid, opcode=wire.OP_SPIN):
    """A device that has sent JOBS jobs."""
    device = mediator.connect(uuid)
    device.submit_all({id_: (opcode, [SPIN_US]) for id_ in range(1, JOBS + 1)})
    return device


def spent(mediator, uuids):
    """{uuid: (seconds charged, seconds of work done)} now; None where a VM has run out of jobs."""
    vms = {vm["vm_uuid"]: vm for vm in mediator.status()["vms"]}
    if not all(vms[uuid]["queue_depth"] > 8 for uuid in uuids):
        return None
    return {uuid: (vms[uuid]["charged_s"], vms[uuid]["jobs_done"] * SPIN_US / 1e6)
            for uuid in uuids}


def gets_no_more_than(share, mediator, uuid, other, meanwhile=lambda: None, seconds=0.6):
    """Of what the two of them are charged, and do, in that time; meanwhile() is called all along."""
    def begun():
        now = spent(mediator, [uuid, other])
        return now if now and all(charged > 0 for charged, _ in now.values()) else None

    before = now = harness.wait_for(begun, "a turn of each VM")
    while now and sum(charged for charged, _ in now.values()) < seconds:
        last = now
        meanwhile()
        now = spent(mediator, [uuid, other])
    had = {vm: [a - b for a, b in zip((now or last)[vm], before[vm])] for vm in (uuid, other)}
    beyond = [mine - share * (mine + others) for mine, others in zip(had[uuid], had[other])]
    assert min(beyond) <= TURN_S, had


def all_done(device):
    answers = device.answers(JOBS)
    assert list(answers) == list(range(1, JOBS + 1)), "they are answered in their order"
    assert {answer.code for answer in answers.values()} == {wire.OK}


def test_changes_lose_no_job_and_grant_no_windfall(new_mediator):
    """However often a weight changes by a trifle, what was paid or is owed stays what it is."""
    mediator = new_mediator().start(job_timeout_ms=HOUR_MS, quantum_us=25000)
    busy, other = mediator.add_vms(1, 2)
    devices = [backlog(mediator, uuid) for uuid in (busy, other)]
    weights = itertools.cycle([1.01, 1])
    gets_no_more_than(1.01 / 2.01, mediator, busy, other,
                      lambda: mediator.set_vm(busy, weight=next(weights)))
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
    gets_no_more_than(1 / 2, mediator, liar, honest)
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
        device.submit_all({id_: (wire.OP_CUDA_KERNEL, (1, 2)) for id_ in range(1, 5)})
        harness.wait_for(lambda: len(mediator.workers()) == 2, "a worker that starts")
        for _ in range(20):
            neighbour.works()
            status = mediator.vm_status(slow)
            assert (status["charged_s"], status["in_flight"], status["queue_depth"]) == (0, 0, 4)
        (directory / "go").touch()
        assert {answer.code for answer in device.answers(4).values()} == {wire.OK}

# SPDX-License-Identifier: MIT
"""What a worker can reach: nothing of the mediator, of other workers, or of the host."""

import contextlib
import os
import pathlib
import signal
import subprocess

import mediator as harness
import wire
from needs import as_root

UNUSED_UID = 70003


@as_root
def test_the_sandbox_holds():
    done = subprocess.run(
        [harness.WORKER, "--probe-sandbox", "--uid", str(UNUSED_UID)],
        capture_output=True,
        text=True,
        timeout=harness.LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= 10
    assert "NOT REFUSED" not in done.stdout


@as_root
def test_a_worker_that_hangs_dies_with_the_mediator(mediator):
    """It does not look at its socket any more: the kernel sees to it."""
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    worker = mediator.worker_pid(uuid)
    device.submit(wire.OP_HANG)
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "the hanging job")
    mediator.kill()
    try:
        harness.wait_for(lambda: not harness.alive(worker), "the end of the worker")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


@as_root
def test_workers_are_apart(mediator):
    """Each has a uid of its own, no privileges, a filter, and its own network."""
    uuids = mediator.add_vms(1, 2)
    for uuid in uuids:
        mediator.connect(uuid).works()
    pids = [mediator.worker_pid(uuid) for uuid in uuids]
    uids = [harness.process_status(pid, "Uid") for pid in pids]
    assert all(len(set(ids)) == 1 for ids in uids)
    assert len({ids[0] for ids in uids} | {"0"}) == 3
    for pid in pids:
        assert harness.process_status(pid, "CapEff") == ["0" * 16]
        assert harness.process_status(pid, "NoNewPrivs") == ["1"]
        assert harness.process_status(pid, "Seccomp") == ["2"]
        assert harness.process_status(pid, "PPid") == [str(mediator.process.pid)]
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        [threads] = [line for line in limits.splitlines() if line.startswith("Max processes")]
        assert threads.split()[2] == "256"
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in (*pids, mediator.process.pid)}
    assert len(networks) == 3


def test_a_worker_holds_nothing_of_the_mediator(mediator):
    """Its descriptors are its socket and the standard ones."""
    uuid = mediator.add_vm()
    mediator.connect(uuid).works()
    pid = mediator.worker_pid(uuid)
    targets = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            targets[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    assert sorted(targets) == [0, 1, 2, 3]
    assert targets[0] == targets[1] == "/dev/null"
    assert targets[3].startswith("socket:")
    # Who writes to the same open file could make it non-blocking, or fill it, for all.
    assert targets[2].startswith("pipe:")
    assert targets[2] != os.readlink(f"/proc/{mediator.process.pid}/fd/2")


def test_a_worker_goes_before_the_mediator_when_memory_runs_out(mediator):
    uuid = mediator.add_vm()
    mediator.connect(uuid).works()
    for pid, score in ((mediator.worker_pid(uuid), 1000), (mediator.process.pid, None)):
        told = int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text())
        assert told == score or (score is None and told < 1000)

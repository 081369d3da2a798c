# SPDX-License-Identifier: MIT
"""The lives of worker processes: started on demand, restarted, shared out, and ended."""

import os
import pathlib
import signal
import threading
import time

import pytest

import mediator as harness
import wire
from gpu_story import Story
from needs import as_root
from worker_programs import hostile

SPIN_US = 100_000


# ---- Jobs that end badly ----------------------------------------------------


def test_a_job_that_hangs(mediator):
    """Answered 0x04 at its limit; what was queued behind it runs in a new worker."""
    uuid, other = mediator.add_vms(1, 2, job_timeout_ms=500)
    device = mediator.connect(uuid)
    with harness.Neighbour(mediator, other) as neighbour:
        device.works()
        worker = mediator.worker_pid(uuid)
        began = time.monotonic()
        hang = device.submit(wire.OP_HANG)
        rest = {1000 + n: (wire.OP_CUDA_KERNEL, [n, 1]) for n in range(20)}
        device.submit_all(rest)
        answers = device.answers(21)
        assert time.monotonic() - began >= 0.5
        assert (answers[hang].type, answers[hang].code) == (wire.MSG_RESPONSE, wire.TIMEOUT)
        lost = [id_ for id_ in rest if answers[id_].code == wire.CONTEXT_LOST]
        assert lost == list(rest)[: len(lost)] and len(lost) <= 3
        for id_ in list(rest)[len(lost) :]:
            assert (answers[id_].code, answers[id_].words) == (wire.OK, [id_ - 999])
        assert mediator.worker_pid(uuid) != worker
        assert not harness.alive(worker)
        neighbour.works()
    status = mediator.vm_status(uuid)
    assert status["faults"] == 1 and not status["quarantined"]
    assert mediator.vm_status(other)["jobs_failed"] == 0
    with mediator.registry() as registry:
        assert registry.execute("SELECT vm_uuid, kind FROM faults WHERE points > 0").fetchall() == [
            (uuid, "timeout")
        ]


def test_a_job_over_its_limit(mediator):
    """Work that would end by itself is no different from a hang."""
    uuid = mediator.add_vm(job_timeout_ms=200)
    device = mediator.connect(uuid)
    assert device.call(wire.OP_SPIN, [2_000_000]).code == wire.TIMEOUT
    device.works()


def test_a_job_that_faults(mediator):
    """An error, and the next job works; the VM beside it notices nothing."""
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    with harness.Neighbour(mediator, other):
        for count in range(1, 4):
            device.works()
            worker = mediator.worker_pid(uuid)
            answer = device.call(wire.OP_FAULT)
            assert (answer.type, answer.code) == (wire.MSG_RESPONSE, wire.CUDA)
            assert mediator.vm_status(uuid)["faults"] == count
            device.works()
            assert mediator.worker_pid(uuid) != worker
            assert not harness.alive(worker)


def test_a_job_that_faults_on_a_gpu(new_mediator):
    """The worker tells the CUDA error; it reaches the guest as detail."""
    mediator = new_mediator()
    if not (harness.STANDIN / "libcuda.so.1").exists():
        pytest.skip("the stand-in for CUDA is not built")
    mediator.environment = {"LD_LIBRARY_PATH": str(harness.STANDIN)}
    mediator.start(backend="cuda")
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    with harness.Neighbour(mediator, other):
        device.works()
        answer = device.call(wire.OP_FAULT)
        assert (answer.code, answer.words[0]) == (wire.CUDA, 700)
        device.works()
        hang = device.submit(wire.OP_HANG)
        harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "the hanging job")
        os.kill(mediator.worker_pid(uuid), signal.SIGKILL)
        answer = device.answer()
        assert (answer.id, answer.code) == (hang, wire.CUDA)
        device.works()


def test_many_faults_quarantine(mediator):
    """With the ninth point the VM is quarantined, which is in the registry before it knows."""
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    with harness.Neighbour(mediator, other):
        for _ in range(9):
            assert device.call(wire.OP_FAULT).code == wire.CUDA
        with mediator.registry() as registry:
            [row] = registry.execute(
                "SELECT quarantined, error_count FROM vms WHERE vm_uuid = ?", (uuid,)
            ).fetchall()
        assert row == (1, 9)
        assert device.call(wire.OP_NOP).code == wire.QUARANTINED
        assert mediator.vm_status(uuid)["quarantined"] is True
        # An operator clears it, and with it the points.
        mediator.set_vm(uuid, quarantined=0)
        device.works()
        assert device.call(wire.OP_FAULT).code == wire.CUDA
        device.works()
    mediator.kill()
    mediator.start()
    mediator.connect(uuid).works()


def test_a_quarantine_survives(mediator):
    """However the mediator ends right after the answer."""
    uuid = mediator.add_vm(1)
    device = mediator.connect(uuid)
    for _ in range(9):
        assert device.call(wire.OP_FAULT).code == wire.CUDA
    mediator.kill()
    mediator.start()
    assert mediator.connect(uuid).call(wire.OP_NOP).code == wire.QUARANTINED
    mediator.set_vm(uuid, quarantined=0)
    mediator.connect(uuid).works()


# ---- Starting ---------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["exits", "crashes", "refuses", "missing", "babbles"])
def test_a_worker_that_cannot_start(new_mediator, programs, trouble):
    """Jobs are answered 0x03, attempts get rarer, and once it can start all is well."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    if trouble == "exits":
        programs.script("exit 69")
    elif trouble == "crashes":
        programs.script("kill -SEGV $$")
    elif trouble == "refuses":
        programs.script(f'exec "{harness.WORKER}" --gpu 7 "$@"')
    elif trouble == "missing":
        (programs.directory / "vgpu-worker").unlink()
    else:
        programs.script("echo no packet >&3; sleep 60")
    device = mediator.connect(uuid)
    began = time.monotonic()
    for _ in range(4):
        ids = [device.submit(wire.OP_CUDA_KERNEL, [1, 2]) for _ in range(3)]
        answers = device.answers(3)
        assert [answers[id_].code for id_ in ids] == 3 * [wire.UNAVAILABLE]
    # Between the four attempts lie 0.1, 0.2 and 0.4 s at least.
    assert time.monotonic() - began >= 0.7
    if trouble != "missing":
        assert programs.attempts() <= 4 * 3
    if trouble == "refuses":
        assert "--gpu 7 has no meaning" in mediator.log()
    if trouble == "missing":
        assert f"cannot start {programs.directory}/vgpu-worker: No such file" in mediator.log()
    assert mediator.vm_status(uuid)["faults"] == 0
    programs.works()
    harness.wait_for(lambda: device.call(wire.OP_NOP).code == wire.OK, "a job that works")


def test_a_worker_that_never_starts_is_shown_and_does_not_keep_jobs_waiting(new_mediator, programs):
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    programs.script("exit 1")
    device = mediator.connect(uuid)
    for _ in range(5):
        assert device.call(wire.OP_NOP).code == wire.UNAVAILABLE
    mediator.says("has failed to start 5 times in a row")
    # From here on nobody waits for the next attempt, which is 3.2 s away.
    for _ in range(10):
        assert device.call(wire.OP_NOP).code == wire.UNAVAILABLE
    status = mediator.vm_status(uuid)
    assert (status["worker"], status["failed_starts"], status["refused"]) == ("failing", 5, 10)
    [worker] = mediator.workers()
    assert (worker["pid"], worker["state"], worker["failed_starts"]) == (None, "failing", 5)
    metrics = mediator.call("show-metrics")["text"]
    assert f'vgpu_worker_start_failures_total{{vm_uuid="{uuid}"}} 5\n' in metrics
    assert f'vgpu_rejections_total{{vm_uuid="{uuid}",reason="unavailable"}} 10\n' in metrics
    programs.works()
    harness.wait_for(lambda: device.call(wire.OP_NOP).code == wire.OK, "a job that works")
    assert mediator.vm_status(uuid)["failed_starts"] == 0
    assert mediator.workers()[0]["failed_starts"] == 0


def test_a_gpu_on_which_workers_do_not_start_says_so(new_mediator, programs):
    """It may be the GPU; whichever worker starts there clears it."""
    story = Story(new_mediator())
    uuid, other = story.vm, story.mediator.add_vm(2)
    programs.script("exit 1")
    os.kill(story.mediator.worker_pid(uuid), signal.SIGKILL)
    harness.wait_for(
        lambda: story.mediator.vm_status(uuid)["worker"] == "none", "the end of the worker")
    for _ in range(5):
        assert story.device.call(wire.OP_NOP).code == wire.UNAVAILABLE
    story.state_becomes("degraded")
    [reason] = story.gpu()["reasons"]
    assert reason["code"] == "starts_fail"
    assert uuid in reason["message"] and "vgpu-worker --probe" in reason["remedy"]
    programs.works()
    story.mediator.connect(other).works()
    story.state_becomes("ok")
    story.says_over("workers do not start there")


def test_a_worker_that_cannot_start_harms_nobody(new_mediator, programs):
    """Another VM's worker, which runs, goes on."""
    mediator = new_mediator().start()
    good, bad = mediator.add_vms(1, 2)
    with harness.Neighbour(mediator, good):
        programs.script("exit 1")
        device = mediator.connect(bad)
        for _ in range(2):
            assert device.call(wire.OP_NOP).code == wire.UNAVAILABLE


def test_a_start_that_fails_while_the_worker_is_no_longer_wanted(new_mediator, programs):
    """The job and the drain come at the same moment, and there is no worker to kill."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.nothing_more()
    (programs.directory / "vgpu-worker").unlink()
    with mediator.admin() as admin:
        mediator.signal(signal.SIGSTOP)
        id_ = device.submit(wire.OP_NOP)
        admin.sendall(b'{"id":1,"method":"drain","params":{"gpu":0}}\n')
        mediator.signal(signal.SIGCONT)
        assert b'"result"' in admin.recv(65536)
    answer = device.answer()
    assert (answer.id, answer.code) in [(id_, wire.RATE_LIMITED), (id_, wire.UNAVAILABLE)]
    programs.works()
    mediator.call("resume", gpu=0)
    harness.wait_for(lambda: device.call(wire.OP_NOP).code == wire.OK, "a job that works")


def test_no_worker_program(new_mediator, programs):
    (programs.directory / "vgpu-worker").unlink()
    said = new_mediator().refuses_to_start()
    assert f"{programs.directory}/vgpu-worker" in said and "No such file" in said


# ---- Workers that were taken over -------------------------------------------


@pytest.mark.parametrize(
    "what, said",
    [
        ("invents", "it answered a job that it does not have: killed"),
        ("repeats", "it answered a job that it does not have: killed"),
        ("complains", "it sent a malformed packet: killed"),
        ("boasts", "it sent a malformed packet: killed"),
    ],
)
def test_a_worker_that_does_not_keep_to_the_protocol(new_mediator, programs, what, said):
    """It is killed at once, which is a fault of its VM; nobody else notices."""
    mediator = new_mediator().start(fault_points=0)
    uuid, other = mediator.add_vms(1, 2)
    mediator.connect(other).works()
    hostile(programs, what)
    with harness.Neighbour(mediator, other):
        device = mediator.connect(uuid)
        device.submit(wire.OP_CUDA_KERNEL, [100, 200])
        mediator.says(said)
        assert device.answer().code in (wire.OK, wire.CUDA, wire.UNAVAILABLE)
        programs.works()
        harness.wait_for(lambda: device.call(wire.OP_NOP).code == wire.OK, "a good worker")


def test_a_worker_that_lies_about_time(new_mediator, programs):
    """Nothing that is counted goes beyond what can be true."""
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    hostile(programs, "exaggerates")
    device = mediator.connect(uuid)
    began = time.monotonic()
    for _ in range(100):
        device.works()
    lasted = time.monotonic() - began
    metrics = mediator.call("show-metrics")["text"]
    for name in ("vgpu_gpu_job_seconds_total", "vgpu_execution_seconds_sum"):
        values = [float(l.rsplit(" ", 1)[1]) for l in metrics.splitlines() if l.startswith(name)]
        assert values and 0 < sum(values) <= lasted, (name, values)
    assert mediator.vm_status(uuid)["charged_s"] <= lasted


# ---- Places -----------------------------------------------------------------


def test_an_idle_worker_ends(new_mediator):
    mediator = new_mediator().start(worker_idle_s=1)
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    worker = mediator.worker_pid(uuid)
    harness.wait_for(lambda: mediator.status()["workers"] == 0, "the end of the worker")
    assert not harness.alive(worker)
    assert "died" not in mediator.log() and "exited with" not in mediator.log()
    assert mediator.vm_status(uuid)["faults"] == 0
    device.works()


def test_a_worker_that_is_killed_while_idle(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    os.kill(mediator.worker_pid(uuid), signal.SIGKILL)
    harness.wait_for(lambda: mediator.vm_status(uuid)["faults"] == 1, "its death in the status")
    mediator.says("died of signal 9")
    device.works()


def work_until(device, leave, count):
    """One job after the other, each waited for, as most guests do."""
    while not leave.is_set():
        device.works()
        count.append(None)


def test_more_vms_than_places(new_mediator):
    """Five VMs share two places: all are served, however busy the others are."""
    mediator = new_mediator().start(max_workers=2)
    uuids = mediator.add_vms(*range(1, 6))
    devices = [mediator.connect(uuid) for uuid in uuids]
    leave = threading.Event()
    counts = [[] for _ in devices]
    threads = [
        threading.Thread(target=work_until, args=(device, leave, count), daemon=True)
        for device, count in zip(devices, counts)
    ]
    for thread in threads:
        thread.start()
    most = 0

    def served():
        nonlocal most
        pids = [worker["pid"] for worker in mediator.workers() if worker["pid"]]
        most = max(most, len(pids))
        return all(len(count) >= 3 for count in counts)

    try:
        harness.wait_for(served, "three jobs of each VM")
    finally:
        leave.set()
        for thread in threads:
            thread.join(harness.LIMIT_S)
    assert most <= 2
    assert [mediator.vm_status(uuid)["jobs_failed"] for uuid in uuids] == 5 * [0]


def test_vms_that_never_rest_make_room(new_mediator):
    """Two VMs whose queues never run empty do not keep a third one out for good."""
    mediator = new_mediator().start(max_workers=2)
    busy = [mediator.connect(uuid) for uuid in mediator.add_vms(1, 2)]
    waits = mediator.connect(mediator.add_vm(3))
    leave = threading.Event()

    def flood(device):
        for _ in range(16):
            device.submit(wire.OP_SPIN, [1000])
        while not leave.is_set():
            assert device.answer().code == wire.OK
            device.submit(wire.OP_SPIN, [1000])
        device.answers(16)

    threads = [threading.Thread(target=flood, args=(device,), daemon=True) for device in busy]
    for thread in threads:
        thread.start()
    try:
        harness.wait_for(lambda: mediator.status()["workers"] == 2, "two workers")
        waits.works()
    finally:
        leave.set()
        for thread in threads:
            thread.join(harness.LIMIT_S)
    assert not any(thread.is_alive() for thread in threads)


def test_a_long_job_does_not_hold_up_the_line(new_mediator):
    """Of two busy workers one hangs: the other, with short jobs without end, makes room."""
    mediator = new_mediator().start(max_workers=2, overlap_max=4, job_timeout_ms=3_600_000)
    long, short, late = mediator.add_vms(1, 2, 3)
    hanging = mediator.connect(long)
    hanging.works()
    with harness.Neighbour(mediator, short):
        hanging.submit(wire.OP_HANG)
        harness.wait_for(lambda: mediator.vm_status(long)["in_flight"] == 1, "the hanging job")
        mediator.connect(late).works()
    os.kill(mediator.worker_pid(long), signal.SIGKILL)
    assert hanging.answer().code == wire.CUDA


def test_a_long_job_keeps_only_its_own_place(new_mediator):
    """Of two idle workers both make room when two VMs wait."""
    mediator = new_mediator().start(max_workers=2, overlap_max=4)
    uuids = mediator.add_vms(*range(1, 5))
    for uuid in uuids[:2]:
        mediator.connect(uuid).works()
    harness.wait_for(lambda: mediator.status()["workers"] == 2, "two workers")
    third, fourth = (mediator.connect(uuid) for uuid in uuids[2:])
    third.submit(wire.OP_HANG)
    fourth.works()
    os.kill(mediator.worker_pid(uuids[2]), signal.SIGKILL)
    assert third.answer().code == wire.CUDA


# ---- Workers that survive SIGKILL -------------------------------------------


@as_root
def test_a_worker_that_hangs_in_the_driver_does_not_delay_the_end(mediator):
    """It is left behind, and counts no more among those that are waited for."""
    uuid = mediator.add_vm(job_timeout_ms=100)
    device = mediator.connect(uuid)
    device.works()
    with harness.unreapable(mediator.worker_pid(uuid)):
        assert device.call(wire.OP_HANG).code == wire.TIMEOUT
        mediator.says("survives SIGKILL: it hangs in the driver")
        mediator.stop()
    assert "did not end" not in mediator.log()
    assert mediator.log().count("it is left behind") == 1


@as_root
def test_a_second_sigterm_does_not_wait_for_the_driver(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    with harness.unreapable(mediator.worker_pid(uuid)):
        device.submit(wire.OP_HANG)
        harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "the hanging job")
        mediator.signal(signal.SIGTERM)
        mediator.says("stopping")
        mediator.stop()
    assert not mediator.admin_path.exists()


def test_a_probe_that_hangs_dies_with_the_mediator(new_mediator):
    mediator = new_mediator()
    if not (harness.STANDIN / "libcuda.so.1").exists():
        pytest.skip("the stand-in for CUDA is not built")
    mediator.environment = {
        "LD_LIBRARY_PATH": str(harness.STANDIN),
        "VGPU_STANDIN_INIT_HANGS": "1",
    }
    mediator.launch(backend="auto")

    def probe():
        own = mediator.process.pid
        return [pid for pid, parent in harness.processes().items() if parent == own]

    def hangs():
        pids = probe()
        return pids and "libcuda" in pathlib.Path(f"/proc/{pids[0]}/maps").read_text() and pids

    [pid] = harness.wait_for(hangs, "a probe")
    mediator.kill()
    harness.wait_for(lambda: not harness.alive(pid), "the end of the probe")

# SPDX-License-Identifier: MIT
"""vgpu-worker from outside: the real program, spoken to as the mediator does.

The cuda backend runs on the stand-in library of tests/standin, so that faults,
hangs and missing pieces can be had on command. Needs a build; VGPU_BUILD names its
directory. Tests of uids and namespaces need root and are skipped without it.
"""

import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

import wire
from needs import as_root
from paths import STANDIN, WORKER

UID_A = 70001
UID_B = 70002
TIMEOUT_S = 30  # for what must happen; never waited for when it does
EXIT_UNAVAILABLE = 69
EXIT_PROTOCOL = 70
EXIT_CONTEXT_LOST = 71

both_backends = pytest.mark.parametrize("backend", ["cpu", "cuda"])
every_way = pytest.mark.parametrize(
    "options",
    [["--backend", "cpu"], ["--backend", "cuda"], ["--backend", "cuda", "--blocking-sync"]],
    ids=["cpu", "cuda", "cuda-blocking"],
)


def environment(library=STANDIN, **standin):
    """Ours, with the stand-in in the library path; settings without VGPU_STANDIN_."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("VGPU_STANDIN_")}
    env["LD_LIBRARY_PATH"] = str(library)
    env.update({f"VGPU_STANDIN_{k.upper()}": str(v) for k, v in standin.items()})
    return env


class Worker:
    """A started worker; `ready` is what it said first, decoded."""

    def __init__(self, *options, env=None, uid=UID_A, parent=None, pass_fds=(), groups=None):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT_S)
        self.process = subprocess.Popen(
            [WORKER, "--fd", str(theirs.fileno()), "--parent", str(parent or os.getpid())]
            + (["--uid", str(uid)] if os.geteuid() == 0 else [])
            + list(options),
            env=env or environment(),
            pass_fds=(theirs.fileno(), *pass_fds),
            extra_groups=groups,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.holds_mib = 0  # as it has said last
        self.first = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def device(self):
        assert self.first.type == wire.WORKER_READY, self.first
        return wire.unpack_device(self.first.payload)

    def send(self, job, opcode, params=()):
        self.socket.send(wire.pack_job(job, opcode, params))

    def receive(self):
        """The next packet that is about a job or the start."""
        while packet := self.socket.recv(2 * wire.WORKER_PACKET_BYTES):
            packet = wire.unpack_worker(packet)
            if packet.type != wire.WORKER_HOLDS:
                return packet
            assert packet.detail != self.holds_mib and packet.payload == b""
            self.holds_mib = packet.detail
        raise EOFError("the worker has gone")

    def done(self, job, type_=wire.WORKER_DONE):
        """The end of this job, which must be the next packet: (packet, response)."""
        packet = self.receive()
        assert packet.type == type_
        assert packet.job == job
        response = wire.decode_response(packet.payload)
        assert response.status == packet.code
        assert response.exec_time_us == packet.gpu_time_ns // 1000
        if packet.code != wire.OK:
            assert response.results == [packet.detail, packet.command]
        return packet, response

    def call(self, opcode, params=(), job=1):
        self.send(job, opcode, params)
        return self.done(job)

    def results(self, opcode, params=()):
        packet, response = self.call(opcode, params)
        assert packet.code == wire.OK, packet
        return response.results

    def code(self, opcode, params=()):
        return self.call(opcode, params)[0].code

    def wait(self):
        return self.process.wait(TIMEOUT_S)

    def close(self):
        """Closes the connection; returns the worker's exit status."""
        self.socket.close()
        return self.wait()


def start(backend, *options, **kwargs):
    return Worker("--backend", backend, *options, **kwargs)


# ---- Operations -------------------------------------------------------------


@every_way
def test_built_in_operations(options):
    with Worker(*options) as worker:
        worker.device()
        assert worker.results(wire.OP_NOP) == []
        assert worker.results(wire.OP_CUDA_KERNEL, [100, 200]) == [300]
        assert worker.results(wire.OP_CUDA_KERNEL, [-5, 3]) == [0xFFFFFFFE]
        assert worker.results(wire.OP_CUDA_KERNEL, [0x7FFFFFFF, 1]) == [0x80000000]
        assert worker.close() == 0


@both_backends
def test_residue(backend):
    """What one worker fills another does not see; what is there is counted."""
    words = (32 << 20) // 8
    with start(backend, "--allow-test-ops") as filler, \
            start(backend, "--allow-test-ops", uid=UID_B) as other:
        assert filler.results(wire.OP_RESIDUE, [1, 32]) == [32, words, 0, words, 0]
        filler.process.kill()
        filler.wait()
        assert other.results(wire.OP_RESIDUE, [0, 32]) == [32, 0, 0, 0, 0]
    with start("cuda", "--allow-test-ops", env=environment(residue_byte=0xa7)) as other:
        assert other.results(wire.OP_RESIDUE, [0, 32]) == [32, words, 0, words, 0]


@both_backends
@pytest.mark.parametrize("n, seed", [(1, 0), (3, 1), (64, 7), (65, 0xFFFFFFFF), (130, 12345), (1025, 3)])
def test_sgemm_gives_the_defined_product(backend, n, seed):
    with start(backend) as worker:
        assert worker.results(wire.OP_SGEMM, [n, seed]) == wire.sgemm_results(n, seed)
        # Again in the same memory, as nothing may be left of the first.
        assert worker.results(wire.OP_SGEMM, [n, seed + 1]) == wire.sgemm_results(n, seed + 1)


def test_device_info_cpu():
    with start("cpu") as worker:
        device = worker.device()
        assert device.backend == 0
        assert device.multiprocessors == 1
        assert device.name.startswith("CPU ")
        _, response = worker.call(wire.OP_GET_DEVICE_INFO)
        assert response.results == [0, 0, 1, device.total_mib, 0]
        assert response.data.decode() == device.name


def test_device_info_cuda_counts_the_memory_it_holds():
    with start("cuda") as worker:
        device = worker.device()
        assert device == wire.WorkerDevice(1, 9 << 16, 4, 8192, 0, "Stand-in GPU 0")
        _, response = worker.call(wire.OP_GET_DEVICE_INFO)
        assert response.results == [1, 9 << 16, 4, 8192, 0]
        assert response.data == b"Stand-in GPU 0"
        assert worker.holds_mib == 0
        worker.results(wire.OP_SGEMM, [300, 0])
        # Said before the job's end, and once.
        assert worker.holds_mib == 3
        worker.results(wire.OP_SGEMM, [300, 0])
        _, response = worker.call(wire.OP_GET_DEVICE_INFO)
        assert response.results[4] == 3
        worker.results(wire.OP_SGEMM, [1024, 0])
        assert worker.holds_mib == 15


@every_way
def test_spin_takes_its_time(options):
    with Worker(*options, "--allow-test-ops") as worker:
        packet, _ = worker.call(wire.OP_SPIN, [3000])
        assert packet.code == wire.OK
        assert packet.gpu_time_ns > 1_500_000


@both_backends
def test_operations_for_tests_are_refused_by_default(backend):
    with start(backend) as worker:
        for opcode, params in ((wire.OP_SPIN, [1]), (wire.OP_FAULT, []), (wire.OP_HANG, []),
                               (wire.OP_RESIDUE, [0, 32])):
            assert worker.code(opcode, params) == wire.UNSUPPORTED
        assert worker.close() == 0


@both_backends
def test_wrong_requests_are_refused_and_the_worker_lives(backend):
    with start(backend, "--allow-test-ops") as worker:
        for opcode in (0x0002, 0x0003, 0x0004, 0x0006, 0x0100, 0x7FFF, 0xFFFFFFFF):
            assert worker.code(opcode) == wire.UNSUPPORTED
        for opcode, params in (
            (wire.OP_NOP, [1]),
            (wire.OP_CUDA_KERNEL, [1]),
            (wire.OP_CUDA_KERNEL, [1, 2, 3]),
            (wire.OP_GET_DEVICE_INFO, [0]),
            (wire.OP_SPIN, []),
            (wire.OP_SPIN, [600_000_001]),
            (wire.OP_SGEMM, [16]),
            (wire.OP_SGEMM, [0, 1]),
            (wire.OP_SGEMM, [4097, 1]),
        ):
            assert worker.code(opcode, params) == wire.INVALID_REQUEST, (opcode, params)
        worker.socket.send(wire.pack_worker(wire.WORKER_JOB, b"short", wire.OP_NOP, 7))
        assert worker.done(7)[0].code == wire.INVALID_LENGTH
        worker.socket.send(
            wire.pack_worker(wire.WORKER_JOB, wire.encode_request(wire.OP_NOP), wire.OP_SGEMM, 8)
        )
        assert worker.done(8)[0].code == wire.INVALID_REQUEST
        assert worker.results(wire.OP_CUDA_KERNEL, [1, 2]) == [3]


# ---- Jobs sent ahead --------------------------------------------------------


@every_way
def test_jobs_sent_ahead_are_answered_in_order(options):
    with Worker(*options, "--allow-test-ops") as worker:
        worker.send(1, wire.OP_SPIN, [5000])
        worker.send(2, wire.OP_CUDA_KERNEL, [1, 2])
        worker.send(3, 0xDEAD)
        worker.send(4, wire.OP_GET_DEVICE_INFO)
        assert worker.done(1)[0].code == wire.OK
        assert worker.done(2)[1].results == [3]
        assert worker.done(3)[0].code == wire.UNSUPPORTED
        assert worker.done(4)[0].code == wire.OK


@every_way
def test_more_jobs_than_it_queues(options):
    with Worker(*options) as worker:
        for job in range(50):
            worker.send(job, wire.OP_CUDA_KERNEL, [job, 1000])
        for job in range(50):
            assert worker.done(job)[1].results == [job + 1000]


def test_the_next_job_is_launched_before_the_last_has_ended():
    env = environment(kernel="vgpu_add", then="die")
    with start("cuda", "--allow-test-ops", env=env) as worker:
        worker.send(1, wire.OP_HANG)
        worker.send(2, wire.OP_CUDA_KERNEL, [1, 2])
        assert worker.wait() == -signal.SIGABRT


def test_a_job_is_launched_while_another_runs_for_long():
    """The worker sleeps by now, and a packet wakes it."""
    env = environment(kernel="vgpu_add", then="die")
    with start("cuda", "--allow-test-ops", env=env) as worker:
        worker.send(1, wire.OP_NOP)
        worker.send(2, wire.OP_HANG)
        worker.done(1)
        assert select.select([worker.socket], [], [], 0.1) == ([], [], [])
        worker.send(3, wire.OP_CUDA_KERNEL, [1, 2])
        assert worker.wait() == -signal.SIGABRT


# ---- How it ends ------------------------------------------------------------


def test_cpu_fault_is_a_real_one():
    with start("cpu", "--allow-test-ops") as worker:
        worker.send(1, wire.OP_FAULT)
        assert worker.wait() == -signal.SIGSEGV


@pytest.mark.parametrize("options", [[], ["--blocking-sync"]], ids=["spin", "blocking"])
def test_cuda_fault_takes_the_jobs_behind_it_along(options):
    with start("cuda", "--allow-test-ops", *options) as worker:
        assert worker.results(wire.OP_CUDA_KERNEL, [1, 2]) == [3]
        for job, opcode in ((2, wire.OP_FAULT), (3, wire.OP_SPIN), (4, wire.OP_SPIN)):
            worker.send(job, opcode, [0] if opcode == wire.OP_SPIN else [])
        # What it has not yet taken from the socket is not answered: it was not launched.
        answered = 2
        with pytest.raises(EOFError):
            while True:
                packet, _ = worker.done(answered, wire.WORKER_LOST)
                assert (packet.code, packet.detail) == (wire.CUDA, 700)
                answered += 1
        assert answered > 2
        assert worker.wait() == EXIT_CONTEXT_LOST


@both_backends
def test_hang_never_ends(backend):
    with start(backend, "--allow-test-ops") as worker:
        worker.send(1, wire.OP_HANG)
        worker.send(2, wire.OP_NOP)
        assert select.select([worker.socket], [], [], 0.3) == ([], [], [])
        assert worker.process.poll() is None


def test_cuda_worker_with_a_hanging_job_leaves_when_the_connection_ends():
    with start("cuda", "--allow-test-ops") as worker:
        worker.send(1, wire.OP_HANG)
        assert worker.close() == 0


def test_a_launch_that_fails_concerns_its_job_only():
    env = environment(kernel="vgpu_add", after=1, then=701)
    with start("cuda", env=env) as worker:
        assert worker.results(wire.OP_CUDA_KERNEL, [1, 2]) == [3]
        packet, _ = worker.call(wire.OP_CUDA_KERNEL, [1, 2])
        assert (packet.code, packet.detail) == (wire.CUDA, 701)
        assert worker.results(wire.OP_NOP) == []


def test_a_launch_that_finds_the_context_dead_ends_the_worker():
    env = environment(kernel="vgpu_add", then=719)
    with start("cuda", env=env) as worker:
        worker.send(1, wire.OP_CUDA_KERNEL, [1, 2])
        packet, _ = worker.done(1, wire.WORKER_LOST)
        assert (packet.code, packet.detail) == (wire.CUDA, 719)
        assert worker.wait() == EXIT_CONTEXT_LOST


def test_out_of_gpu_memory_concerns_its_job_only():
    with start("cuda", env=environment(memory_mib=1)) as worker:
        packet, _ = worker.call(wire.OP_SGEMM, [300, 1])
        assert (packet.code, packet.detail) == (wire.CUDA, 2)
        assert worker.results(wire.OP_SGEMM, [200, 1]) == wire.sgemm_results(200, 1)


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        wire.pack_worker(wire.WORKER_DONE),
        wire.pack_worker(0x77),
        wire.pack_worker(wire.WORKER_JOB, b"", 0, 1)[:-1],
        wire.pack_worker(wire.WORKER_JOB, bytes(1025)),
    ],
)
def test_nonsense_from_the_mediator_ends_the_worker(packet):
    with start("cpu") as worker:
        worker.socket.send(packet)
        assert worker.wait() == EXIT_PROTOCOL


PARENT = """
import os, socket, subprocess, sys
sys.path.insert(0, {here!r})
import wire
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
worker = subprocess.Popen(
    [{worker!r}, "--backend", "cpu", "--allow-test-ops", "--fd", str(theirs.fileno()),
     "--parent", str(os.getpid())] + {options!r}, pass_fds=[theirs.fileno()])
ours.recv(2000)
ours.send(wire.pack_job(1, wire.OP_HANG))
print(worker.pid, flush=True)
worker.wait()
"""


def wait_until_busy(pid):
    """Waits until the process has computed for 50 ms, which only a job makes it do."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        if int(fields[11]) >= os.sysconf("SC_CLK_TCK") // 20:
            return
        time.sleep(0.005)
    raise AssertionError(f"process {pid} does nothing")


@pytest.mark.parametrize("uid", [None, pytest.param(UID_A, marks=as_root)])
def test_dies_with_its_parent(uid):
    """The job never looks at the socket: only the signal can end the worker."""
    code = PARENT.format(
        here=str(pathlib.Path(__file__).parent),
        worker=str(WORKER),
        options=["--uid", str(uid)] if uid else [],
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        worker = int(parent.stdout.readline())
        wait_until_busy(worker)
        parent.kill()
        # The end of file comes when the worker, too, has let go of standard error.
        while select.select([parent.stderr], [], [], TIMEOUT_S)[0]:
            if not os.read(parent.stderr.fileno(), 4096):
                return
        os.kill(worker, signal.SIGKILL)
        raise AssertionError("the worker outlives its parent")


def test_refuses_a_parent_that_is_not_its_own():
    with start("cpu", parent=os.getppid()) as worker:
        assert worker.first.type == wire.WORKER_START_FAILED
        assert b"--parent" in worker.first.payload
        assert worker.wait() == EXIT_UNAVAILABLE


# ---- Start ------------------------------------------------------------------


@pytest.mark.parametrize(
    "env, options, detail, text",
    [
        (environment("/nonexistent"), [], 2, "libcuda.so.1 not found: is the NVIDIA driver"),
        (environment(STANDIN / "incomplete"), [], 38, "no symbol cuEventElapsedTime"),
        (environment(init_error=100), [], 100, "cuInit: CUDA_ERROR_NO_DEVICE"),
        (environment(init_error=12345), [], 12345, "unknown error"),
        (environment(context_error=2), [], 2, "GPU memory is full"),
        (environment(devices=0), [], 19, 'no GPU "0" among the 0'),
        (environment(devices=2), ["--gpu", "2"], 19, 'no GPU "2" among the 2'),
        (environment(), ["--gpu", "GPU-0"], 19, "nvidia-smi -L"),
        (environment(kernel="vgpu_nop", then=304), [], 304, "CUDA_ERROR_OPERATING_SYSTEM"),
    ],
)
def test_start_failures_say_what_is_wrong(env, options, detail, text):
    with start("cuda", *options, env=env) as worker:
        assert worker.first.type == wire.WORKER_START_FAILED
        assert worker.first.code in (wire.UNAVAILABLE, wire.CUDA)
        assert worker.first.detail == detail
        assert text in worker.first.payload.decode()
        assert worker.wait() == EXIT_UNAVAILABLE


def test_start_failure_of_the_cpu_backend():
    with start("cpu", "--gpu", "0") as worker:
        assert worker.first.type == wire.WORKER_START_FAILED
        assert b"--gpu 0" in worker.first.payload


@pytest.mark.parametrize(
    "gpu, name", [("1", "1"), ("gpu-5747414e-4400-0000-0000-000000000002", "2")]
)
def test_gpu_by_index_and_uuid(gpu, name):
    with start("cuda", "--gpu", gpu, env=environment(devices=3)) as worker:
        assert worker.device().name == f"Stand-in GPU {name}"


def test_the_environment_does_not_choose_the_gpu():
    env = dict(environment(), CUDA_VISIBLE_DEVICES="")
    with start("cuda", env=env) as worker:
        assert worker.device().name == "Stand-in GPU 0"


@pytest.mark.parametrize(
    "options, text",
    [
        ([], "--backend is missing"),
        (["--backend", "opencl"], "must be cpu or cuda, not: opencl"),
        (["--backend", "cpu"], "--fd and --parent"),
        (["--backend", "cpu", "--fd", "2"], '--fd must be a number from 3 to 1023, not "2"'),
        (["--backend", "cpu", "--uid", "0"], "--uid must be"),
        (["--backend", "cpu", "--uid", "1x"], "--uid must be"),
        (["--probe", "--backend", "cpu", "more"], "unexpected argument: more"),
        (["--log-level", "loud"], "loud"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors(options, text):
    done = subprocess.run([WORKER, *options], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 64
    assert text in done.stderr


def probe(*options, env=None):
    return subprocess.run(
        [WORKER, *options],
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_probe_tells_the_device():
    done = probe("--probe", "--backend", "cuda", "--gpu", "1", env=environment(devices=2))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "backend": "cuda",
        "name": "Stand-in GPU 1",
        "uuid": "GPU-5747414e-4400-0000-0000-000000000001",
        "capability": "9.0",
        "multiprocessors": 4,
        "total_mib": 8192,
        "driver": "CUDA 13.0",
    }
    done = probe("--probe", "--backend", "cpu")
    assert done.returncode == 0
    assert json.loads(done.stdout)["backend"] == "cpu"


def test_probe_without_a_device():
    done = probe("--probe", "--backend", "cuda", env=environment("/nonexistent"))
    assert done.returncode == EXIT_UNAVAILABLE
    assert done.stdout == ""
    assert "is the NVIDIA driver installed" in done.stderr


# ---- Sandbox ----------------------------------------------------------------


@pytest.mark.parametrize("uid", [None, pytest.param(UID_A, marks=as_root)])
def test_sandbox_refuses_every_escape(uid):
    done = probe("--probe-sandbox", *(["--uid", str(uid)] if uid else []))
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert {"open for reading", "socket inet", "fork", "exec", "kill", "ptrace"} <= set(lines)
    assert {"fcntl O_NONBLOCK", "shutdown of another socket"} <= set(lines)
    assert all(answer.startswith("refused (") for answer in lines.values()), done.stdout
    assert done.returncode == 0, done.stderr


def test_threads_of_the_driver_are_in_the_sandbox_too():
    env = environment(kernel="vgpu_add", then="escape")
    with start("cuda", env=env) as worker:
        assert worker.results(wire.OP_CUDA_KERNEL, [1, 2]) == [3]


def test_the_driver_may_make_threads_late():
    env = environment(kernel="vgpu_add", then="thread")
    with start("cuda", env=env) as worker:
        assert worker.results(wire.OP_CUDA_KERNEL, [1, 2]) == [3]


def status_of(process):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@both_backends
def test_a_ready_worker_is_locked_in(backend):
    with start(backend) as worker:
        worker.device()
        status = status_of(worker.process)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        limits = pathlib.Path(f"/proc/{worker.process.pid}/limits").read_text()
        assert [line.split()[4] for line in limits.splitlines() if "core file" in line] == ["0"]


@as_root
@both_backends
def test_a_worker_has_its_own_uid_and_network(backend):
    with start(backend, uid=UID_B, groups=[12345]) as worker:
        worker.device()
        status = status_of(worker.process)
        assert status["Uid"].split() == [str(UID_B)] * 4
        assert status["Gid"].split() == [str(UID_B)] * 4
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{k}"] for k in ("Prm", "Eff")} == {"0000000000000000"}
        net = os.readlink(f"/proc/{worker.process.pid}/ns/net")
        assert net != os.readlink("/proc/self/ns/net")


@as_root
def test_workers_of_different_uids_cannot_signal_each_other():
    with start("cpu", uid=UID_A) as worker:
        worker.device()

        def signalled_by(uid):
            command = ["kill", "-0", str(worker.process.pid)]
            return subprocess.run(command, user=uid, group=uid, capture_output=True).returncode

        assert signalled_by(UID_A) == 0
        assert signalled_by(UID_B) != 0


@as_root
def test_a_worker_inherits_nothing_but_its_socket():
    with open("/etc/hostname", "rb") as secret:
        with start("cpu", pass_fds=[secret.fileno()]) as worker:
            worker.device()
            directory = f"/proc/{worker.process.pid}/fd"
            links = {fd: os.readlink(f"{directory}/{fd}") for fd in os.listdir(directory)}
    assert links.pop("0") == links.pop("1") == "/dev/null"
    assert links.pop("2").startswith("pipe:")
    assert [link.split(":")[0] for link in links.values()] == ["socket"]


@both_backends
def test_pinned_to_a_cpu(backend):
    cpu = max(os.sched_getaffinity(0))
    with start(backend, "--cpu", str(cpu)) as worker:
        worker.device()
        assert os.sched_getaffinity(worker.process.pid) == {cpu}

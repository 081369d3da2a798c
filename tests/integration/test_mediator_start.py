# SPDX-License-Identifier: MIT
"""How the mediator starts, refuses to start, is told things by signals, and ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

import mediator as harness
import wire

USAGE = 2
SPIN_US = 150_000


# ---- Configuration ----------------------------------------------------------


@pytest.mark.parametrize(
    "content, line, words",
    [
        ("quantum = 4000\n", 1, ["quantum", "no such key", "quantum_us"]),
        ("\n# a comment\njob_timeout_ms = soon\n", 3, ["job_timeout_ms", "soon", "10 to 86400000"]),
        ("job_timeout_ms = 9\n", 1, ["job_timeout_ms", "9", "10 to 86400000"]),
        ("max_workers = -1\n", 1, ["max_workers", "-1", "1 to"]),
        ("max_workers =\n", 1, ["max_workers", "1 to"]),
        ("scheduler_boost = 1.5\n", 1, ["scheduler_boost", "1.5", "0.00 to 1.00"]),
        ("allow_test_ops = maybe\n", 1, ["allow_test_ops", "maybe", "yes or no"]),
        ("backend = gpu\n", 1, ["backend", "gpu", "auto cpu cuda"]),
        ("log_level = loud\n", 1, ["log_level", "loud", "error warning info debug"]),
        ("pool.A.gpus = the first\n", 1, ["pool.A.gpus", "the first", "nvidia-smi -L"]),
        ("max_workers = 8\n[extra]\nmax_workers = 9\n", 2, ["[extra]", "no sections"]),
        ("max_workers = 8\nmax_workers\n", 2, ["key = value"]),
        ("max_workers = 8\n\xff\xfe = 1\n", 2, ["no such key"]),
        ("listen_dir =\n", 1, ["listen_dir", "a path"]),
    ],
)
def test_a_wrong_line_in_the_file(new_mediator, content, line, words):
    """Refused with file and line, what stands there, and what would be right."""
    mediator = new_mediator()
    path = mediator.configuration()
    path.write_text(content, encoding="latin-1")
    said = mediator.refuses_to_start(status=USAGE)
    assert f"{path}:{line}:" in said
    for word in words:
        assert word in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--set", "quantum=4000"], ["quantum", "no such key"]),
        (["--set", "job_timeout_ms=x"], ["job_timeout_ms", "x", "10 to 86400000"]),
        (["--set", "job_timeout_ms"], ["job_timeout_ms", "KEY=VALUE"]),
        (["--backend", "gpu"], ["backend", "gpu", "auto cpu cuda"]),
        (["--db", ""], ["db", "a path"]),
        (["--frobnicate"], ["--frobnicate", "--help"]),
        (["extra"], ["extra", "--help"]),
        (["--config", "/nowhere/mediator.conf"], ["/nowhere/mediator.conf", "No such file"]),
        (["--config", "/"], ["/", "directory"]),
    ],
)
def test_a_wrong_option(new_mediator, arguments, words):
    said = new_mediator().refuses_to_start(*arguments, status=USAGE)
    for word in words:
        assert word in said


def test_no_such_key_lists_all_keys(new_mediator):
    """Whoever mistypes a key sees every key there is."""
    mediator = new_mediator().start()
    keys = mediator.call("show-config").keys()
    other = new_mediator("other")
    said = other.refuses_to_start("--set", "x=1", status=USAGE)
    assert [key for key in keys if f" {key}" not in said] == []
    other.configuration().write_text("x = 1\n")
    said = other.refuses_to_start(status=USAGE)
    assert [key for key in keys if f" {key}" not in said] == []


LONG = "/" + "x" * 253


@pytest.mark.parametrize(
    "content, shown",
    [
        (f"# {'x' * 197} max_workers = 3\n", {"max_workers": "64"}),
        ("max_workers = 8\n  9\n", None),
        (f"reset_command = {LONG}\n", {"reset_command": LONG}),
        ("max_workers=8\r\n\tquantum_us =5000  \n", {"max_workers": "8", "quantum_us": "5000"}),
        ("reset_command = /bin/a ; b # c\n", {"reset_command": "/bin/a ; b # c"}),
        (f"pool.A.gpus = {','.join(f'GPU-{n:08x}-0000-0000-0000-000000000000' for n in range(16))}",
         {"pool.B.gpus": ""}),
    ],
    ids=["long-comment", "indented", "long-value", "white-space", "no-comment-behind", "many-gpus"],
)
def test_lines_are_taken_as_they_are(directory, content, shown):
    """However long, each by itself, with what stands in it."""
    path = directory / "mediator.conf"
    path.write_text(content, newline="")
    done = subprocess.run([harness.PROGRAM, "--config", path, "--show-config"],
                          capture_output=True, text=True, check=False)
    if shown is None:
        assert done.returncode == USAGE and f"{path}:2: 9: not a key = value" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    for key, value in shown.items():
        assert f"{key} = {value}".rstrip() in [line.rstrip() for line in done.stdout.splitlines()]


def test_file_and_options(new_mediator):
    """Options override the file; what is not said has its default."""
    mediator = new_mediator()
    mediator.configuration().write_text("max_workers = 3\n# short\nworker_idle_s = 7\n")
    mediator.start(worker_idle_s=9)
    config = mediator.call("show-config")
    assert (config["max_workers"], config["worker_idle_s"]) == ("3", "9")
    assert config["job_timeout_ms"] == "30000"


# ---- Backends ---------------------------------------------------------------


def without_driver(mediator):
    """Whatever the machine has, this mediator's workers find no CUDA library."""
    empty = mediator.directory / "lib"
    empty.mkdir()
    (empty / "libcuda.so.1").write_bytes(b"no library")
    mediator.environment = {"LD_LIBRARY_PATH": str(empty)}


def with_standin(mediator, **settings):
    if not (harness.STANDIN / "libcuda.so.1").exists():
        pytest.skip("the stand-in for CUDA is not built")
    mediator.environment = {
        "LD_LIBRARY_PATH": str(harness.STANDIN),
        **{f"VGPU_STANDIN_{key.upper()}": str(value) for key, value in settings.items()},
    }


def test_cuda_without_a_gpu(new_mediator):
    mediator = new_mediator()
    without_driver(mediator)
    said = mediator.refuses_to_start(backend="cuda")
    assert "libcuda.so.1" in said
    assert "NVIDIA driver" in said and "nvidia-smi" in said and "--backend cpu" in said
    assert not mediator.admin_path.exists()


@pytest.mark.parametrize(
    "settings", [{"devices": 0}, {"init_error": 999}, {"context_error": 2}], ids=str
)
def test_cuda_with_a_driver_in_trouble(new_mediator, settings):
    mediator = new_mediator()
    with_standin(mediator, **settings)
    said = mediator.refuses_to_start(backend="cuda")
    assert "GPU 0 cannot be used" in said and "--backend cpu" in said


def test_auto_without_a_gpu(new_mediator):
    """The CPU it is then, and it says so."""
    mediator = new_mediator()
    without_driver(mediator)
    mediator.start(backend="auto")
    assert "no GPU answers" in mediator.log() and "CPU" in mediator.log()
    assert mediator.status()["backend"] == "cpu"
    mediator.connect(mediator.add_vm()).works()


@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_cuda(new_mediator, backend):
    mediator = new_mediator()
    with_standin(mediator)
    mediator.start(backend=backend)
    status = mediator.status()
    assert status["backend"] == "cuda"
    assert status["gpus"][0]["uuid"].startswith("GPU-")
    device = mediator.connect(mediator.add_vm())
    device.works()
    assert device.call(wire.OP_GET_DEVICE_INFO).words[0] == 1


def test_a_gpu_that_is_not_there(new_mediator):
    mediator = new_mediator()
    with_standin(mediator)
    absent = "GPU-00000000-0000-0000-0000-000000000000"
    said = mediator.refuses_to_start(backend="cuda", **{"pool.B.gpus": "7"})
    assert "pool B: GPU 7 cannot be used" in said
    said = mediator.refuses_to_start(
        backend="cuda", **{"pool.A.gpus": absent, "pool.B.gpus": absent})
    assert f"pool A: GPU {absent} cannot be used" in said and "--backend cpu" in said


def test_two_gpus_for_two_pools(new_mediator):
    mediator = new_mediator()
    with_standin(mediator, devices=2)
    mediator.start(backend="cuda", **{"pool.A.gpus": "0", "pool.B.gpus": "1"})
    first = mediator.add_vm(1, pool_id="A")
    second = mediator.add_vm(2, pool_id="B")
    for uuid in (first, second):
        mediator.connect(uuid).works()
    assert [mediator.vm_status(uuid)["gpu"] for uuid in (first, second)] == [0, 1]
    # A VM that changes its pool moves to the other GPU.
    mediator.set_vm(first, pool_id="B")
    device = mediator.connect(first)
    device.works()
    assert mediator.vm_status(first)["gpu"] == 1


# ---- One mediator at a time -------------------------------------------------


def test_a_second_mediator(new_mediator):
    """Refused, and the first does not notice."""
    first = new_mediator("first").start()
    uuid = first.add_vm()
    device = first.connect(uuid)
    second = new_mediator("second")
    second.admin_path = first.admin_path
    second.sockets = first.sockets
    said = second.refuses_to_start()
    assert str(first.admin_path) in said and "another mediator is running" in said
    device.works()
    first.connect(uuid).works()
    first.reload()


def test_a_second_mediator_with_the_same_sockets(new_mediator):
    """With an admin socket of its own it starts, and takes no VM away from the first."""
    first = new_mediator("first").start()
    uuid = first.add_vm()
    second = new_mediator("second")
    second.sockets = first.sockets
    second.start()
    second.insert_vm(1)
    report = second.reload()
    assert len(report["errors"]) == 1 and uuid in report["errors"][0]
    second.stop()
    first.connect(uuid).works()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_something_else_where_a_socket_goes(new_mediator, what):
    mediator = new_mediator()
    if what == "file":
        mediator.admin_path.write_text("precious")
    else:
        mediator.admin_path.mkdir()
    said = mediator.refuses_to_start()
    assert str(mediator.admin_path) in said
    assert mediator.admin_path.is_dir() or mediator.admin_path.read_text() == "precious"


def test_a_path_that_is_too_long(new_mediator):
    mediator = new_mediator()
    mediator.admin_path = mediator.directory / ("x" * 100)
    said = mediator.refuses_to_start()
    assert str(mediator.admin_path) in said


def test_stale_sockets(new_mediator):
    """What a mediator that was killed left behind is in nobody's way."""
    mediator = new_mediator()
    mediator.sockets.mkdir()
    for path in (mediator.admin_path, mediator.socket_of(harness.uuid_of(1)), mediator.socket_of("x")):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    (mediator.sockets / "readme").write_text("not a socket")
    mediator.start()
    mediator.connect(mediator.add_vm()).works()
    assert not mediator.socket_of("x").exists()
    assert (mediator.sockets / "readme").exists()


def test_modes_of_the_sockets(mediator):
    """Anyone may be a device, whose path is its key; only the owner is an admin."""
    uuid = mediator.add_vm()
    assert mediator.admin_path.stat().st_mode & 0o777 == 0o600
    assert mediator.socket_of(uuid).stat().st_mode & 0o777 == 0o666


# ---- Signals ----------------------------------------------------------------


def test_sigterm_with_jobs(mediator):
    """Jobs in flight are answered with their results, queued ones with 0x03; then the end."""
    uuid, idle = mediator.add_vms(1, 2)
    mediator.connect(idle).works()
    device = mediator.connect(uuid)
    device.works()
    pids = [worker["pid"] for worker in mediator.workers()]
    assert len(pids) == 2
    device.submit_all({n: (wire.OP_SPIN, [SPIN_US]) for n in range(1, 10)})
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 9, "nine jobs")
    mediator.signal(signal.SIGTERM)
    answers = device.answers(9)
    codes = [answers[id_].code for id_ in range(1, 10)]
    done = codes.count(wire.OK)
    assert 1 <= done <= 4
    assert codes == done * [wire.OK] + (9 - done) * [wire.UNAVAILABLE]
    assert device.ended() == b""
    assert mediator.wait() == 0
    assert not mediator.admin_path.exists()
    assert list(mediator.sockets.iterdir()) == []
    assert not any(harness.alive(pid) for pid in pids)


def test_sigint(mediator):
    mediator.connect(mediator.add_vm()).works()
    mediator.signal(signal.SIGINT)
    assert mediator.wait() == 0


def test_sigterm_without_anything(mediator):
    mediator.stop()
    assert not mediator.admin_path.exists()


def test_a_second_sigterm_does_not_wait(mediator):
    """For whoever cannot wait for a job that hangs."""
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    worker = mediator.worker_pid(uuid)
    device.submit(wire.OP_HANG)
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "a job in flight")
    mediator.signal(signal.SIGTERM)
    mediator.says("stopping")
    mediator.signal(signal.SIGTERM)
    assert mediator.wait() == 0
    assert device.ended() == b""
    harness.wait_for(lambda: not harness.alive(worker), "the end of its worker")


def test_sighup(mediator):
    """Configuration and registry are read again."""
    mediator.configuration().write_text("max_queue_per_vm = 77\nlog_level = debug\n")
    uuid = mediator.insert_vm(1)
    mediator.signal(signal.SIGHUP)
    harness.wait_for(mediator.socket_of(uuid).exists, "the VM's socket")
    assert mediator.call("show-config")["max_queue_per_vm"] == "77"
    mediator.says("max_queue_per_vm: 1024 -> 77")
    mediator.connect(uuid).works()


def test_reload_tells_what_needs_a_restart(mediator):
    mediator.configuration().write_text("legacy_socket = /tmp/x.sock\nmax_workers = 5\n")
    changed = mediator.reload()["changed"]
    assert any("max_workers: 64 -> 5" in line and "restart" not in line for line in changed)
    assert any("legacy_socket" in line and "restart" in line for line in changed)
    assert mediator.call("show-config")["legacy_socket"] == ""


def test_limits_change_while_it_runs(mediator):
    uuid = mediator.add_vm()
    first = mediator.connect(uuid)
    first.works()
    mediator.configuration().write_text("max_connections_per_vm = 1\nmax_queue_per_vm = 2\n")
    mediator.reload()
    assert mediator.connect(uuid).ended() == b""
    first.submit_all({n: (wire.OP_SPIN, [SPIN_US]) for n in range(1, 5)})
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 2, "a full queue")
    first.answers(4)
    mediator.configuration().write_text("")
    mediator.reload()
    mediator.connect(uuid).works()


def test_a_broken_file_changes_nothing(mediator):
    """A reload of a wrong configuration says where, and all goes on as before."""
    path = mediator.configuration()
    path.write_text("max_workers = 3\nmax_workers = none\n")
    uuid = mediator.insert_vm(1)
    report = mediator.reload()
    assert len(report["errors"]) == 1
    assert f"{path}:2:" in report["errors"][0]
    assert mediator.call("show-config")["max_workers"] == "64"
    mediator.connect(uuid).works()


def test_a_log_level_that_changes_is_in_force(mediator):
    """Or the report says that it is not."""
    mediator.configuration().write_text("log_level = debug\n")
    [line] = mediator.reload()["changed"]
    assert "log_level: info -> debug" in line
    uuid = mediator.insert_vm(1)
    mediator.reload()
    mediator.connect(uuid).works()
    assert "restart" in line or "debug:" in mediator.log()


def test_without_vms(mediator):
    """Everything that an operator can ask for is answered when there is nothing yet."""
    for method in mediator.call("help"):
        params = {"gpu": 0} if method in ("drain", "resume") else {}
        if method in ("cancel-job", "vm-set"):
            with pytest.raises(harness.Refusal):
                mediator.call(method, job=1, vm_uuid=harness.uuid_of(1), weight=2)
        else:
            mediator.call(method, **params)
    mediator.connect(mediator.add_vm()).works()


# ---- The legacy socket ------------------------------------------------------


@pytest.fixture
def legacy(new_mediator):
    mediator = new_mediator()
    path = mediator.directory / "legacy.sock"
    mediator.start(legacy_socket=path)
    return mediator, path


def test_the_legacy_socket_believes_vm_ids(legacy):
    mediator, path = legacy
    uuids = mediator.add_vms(7, 200)
    assert "can claim to be any VM" in mediator.log()
    for vm_id, uuid in ((200, uuids[1]), (7, uuids[0])):
        with harness.Device(path, vm_id=vm_id) as device:
            device.works()
        assert mediator.vm_status(uuid)["jobs_done"] == 1
    # The first message decides for the whole connection.
    with harness.Device(path, vm_id=7) as device:
        device.works()
        device.vm_id = 200
        device.works()
    assert [mediator.vm_status(uuid)["jobs_done"] for uuid in uuids] == [3, 1]


def test_the_legacy_socket_and_unknown_vm_ids(legacy):
    mediator, path = legacy
    mediator.add_vm(7)
    with harness.Device(path, vm_id=8) as device:
        device.submit(wire.OP_NOP)
        assert device.ended() == b""
    mediator.says("no VM has the vm_id of its message")


def test_the_legacy_socket_is_bounded(legacy):
    """As many connections of a VM as on a socket of its own."""
    mediator, path = legacy
    mediator.add_vm(7)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(harness.Device(path, vm_id=7)).nothing_more()
        for _ in range(2):
            device = stack.enter_context(harness.Device(path, vm_id=7))
            device.send(wire.MSG_PING)
            assert device.ended() == b""
    mediator.says("its VM has too many connections")


def test_the_legacy_socket_and_a_peer_that_says_nothing(legacy):
    """However often one process connects, another gets in; and silence is no reason to go."""
    mediator, path = legacy
    mediator.add_vm(7)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(harness.Device(path, vm_id=7)) for _ in range(100)]
        harness.wait_for(lambda: "too many connections" in mediator.log(), "a refusal")
        for device in silent[4:]:
            assert device.ended() == b""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import mediator\n"
            "with mediator.Device(sys.argv[2], vm_id=7) as device: device.works()"
        )
        subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__), path],
            check=True,
            timeout=harness.LIMIT_S,
        )
        for device in silent[:4]:
            device.works()


def test_the_legacy_socket_goes_with_the_mediator(legacy):
    mediator, path = legacy
    mediator.stop()
    assert not os.path.exists(path)

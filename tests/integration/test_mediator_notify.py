# SPDX-License-Identifier: MIT
"""What the mediator tells the service manager (sd_notify)."""
import contextlib
import pathlib
import socket
import subprocess
import sys

import pytest

from paths import ROOT

# Stops one thread of a process until its input ends; the others go on.
STOPPER = """
import ctypes, os, sys
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
libc, thread = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(thread, WALL)
print("stopped", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def stopped(thread):
    with subprocess.Popen([sys.executable, "-c", STOPPER, str(thread)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stopper:
        if stopper.stdout.readline() != "stopped\n":
            pytest.skip("no tracing here")
        yield
        stopper.stdin.close()


def thread_states(pid):
    """{thread: letter}, as ps has them; t is a thread that a tracer has stopped."""
    return {
        int(path.name): (path / "stat").read_text().rsplit(") ", 1)[1][0]
        for path in pathlib.Path(f"/proc/{pid}/task").iterdir()
    }


@pytest.fixture
def listening(directory):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(60)
    sock.bind(str(directory / "notify"))
    with sock:
        yield sock


def test_ready_then_the_watchdog_then_stopping(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {
        "NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "100000"}
    mediator.start()
    assert listening.recv(100) == b"READY=1"
    for _ in range(3):
        assert listening.recv(100) == b"WATCHDOG=1"
    mediator.stop()
    rest = []
    while b"STOPPING=1" not in rest:
        rest.append(listening.recv(100))


def test_no_watchdog_without_being_asked(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {"NOTIFY_SOCKET": listening.getsockname()}
    mediator.start()
    mediator.stop()
    assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_a_watchdog_of_another_process_is_not_ours(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {
        "NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    mediator.start()
    mediator.stop()
    assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_a_loop_that_stands_still_is_missed(new_mediator, listening):
    """However much alive the process is otherwise: only the loop says that it turns."""
    mediator = new_mediator()
    mediator.environment = {
        "NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "200000"}
    mediator.start()
    uuid = mediator.add_vm()
    assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
    loop = mediator.process.pid
    with stopped(loop):
        listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while listening.recv(100):
                pass
        # Five times as long as the service manager would wait.
        listening.settimeout(1)
        with pytest.raises(TimeoutError):
            listening.recv(100)
        states = thread_states(loop)
        assert states.pop(loop) == "t" and "t" not in states.values() and states
    listening.settimeout(60)
    assert listening.recv(100) == b"WATCHDOG=1"
    mediator.connect(uuid).works()


def test_the_unit_has_whoever_misses_it_restarted():
    unit = (ROOT / "deploy" / "vgpu-mediator.service").read_text(encoding="ascii").splitlines()
    assert {"Type=notify", "WatchdogSec=30", "Restart=on-failure"} <= set(unit)

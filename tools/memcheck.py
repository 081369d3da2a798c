# SPDX-License-Identifier: MIT
"""Runs programs through whole lives under valgrind. tools/test calls it.

Usage: memcheck.py PROGRAMS REPORT (JUnit XML, one test a life)

Valgrind must find no error, no memory that is lost and no file that is left open. The
workers are not under valgrind, which cannot run a program that locks itself in with
seccomp; the worker's parts are checked through their unit tests.
"""
import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

import host

ERROR_STATUS = 99
VALGRIND = ("valgrind", "--quiet", "--leak-check=full", "--track-fds=yes",
            "--errors-for-leak-kinds=definite,indirect,possible",
            f"--error-exitcode={ERROR_STATUS}")
# How valgrind, which does not count them as errors, tells of files that are open at the end.
LEFT_OPEN = re.compile(r"^==\d+== Open .*\n(?!==\d+==    <inherited)", re.M)
JOBS = (["ping"], ["add", "100", "200"], ["sgemm", "--n", "32"], ["info"],
        ["bench", "--count", "100", "--outstanding", "8"])


def client(programs, mediator, uuid, *job):
    return subprocess.Popen([programs / "vgpu-client", "--socket", mediator.socket_of(uuid), *job],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def easy_life(programs, mediator, uuids):
    """Jobs, a VM that goes, a reload, and an end with nothing under way."""
    for uuid in uuids:
        for job in JOBS:
            if client(programs, mediator, uuid, *job).wait():
                raise host.HostError(f"vgpu-client {job[0]} failed")
    mediator.admin("set-weight", f"--vm-uuid={uuids[0]}", "--weight=3")
    mediator.admin("remove-vm", f"--vm-uuid={uuids[2]}")
    mediator.admin("status")
    mediator.stop()


def hard_life(programs, mediator, uuids):
    """Faults up to the quarantine, a job over its limit, a killed worker, and an end with peers
    connected, jobs queued and running, and an admin client in the middle of a line."""
    for _ in range(3):
        client(programs, mediator, uuids[0], "fault").wait()
    client(programs, mediator, uuids[0], "ping").wait()
    client(programs, mediator, uuids[1], "hang").wait()
    client(programs, mediator, uuids[2], "ping").wait()
    subprocess.run(["kill", "-9", *map(str, mediator.workers())], check=True)
    mediator.admin("clear-quarantine", f"--vm-uuid={uuids[0]}")
    mediator.admin("health")
    mediator.admin("metrics", "--prometheus")
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(socket.socket(socket.AF_UNIX))
        admin.connect(str(mediator.admin_socket))
        admin.sendall(b'{"id":1,"method":"st')
        silent = stack.enter_context(socket.socket(socket.AF_UNIX))
        silent.connect(str(mediator.socket_of(uuids[1])))
        busy = client(programs, mediator, uuids[2], "bench", "--op", "spin", "--spin-us", "20000",
                      "--outstanding", "16", "--seconds", "60")
        mediator.wait_until(lambda: mediator.admin_json("status")["mediator"]["queue_depth"] > 8)
        mediator.stop()
        busy.wait()


LIVES = {
    easy_life: (),
    hard_life: ("allow_test_ops=yes", "quarantine_threshold=3", "job_timeout_ms=300",
                "legacy_socket={directory}/legacy.sock"),
}


def complaint_about(programs, live, settings):
    """What was wrong with that life, or None."""
    uuids = [host.vm_uuid(number) for number in range(1, 4)]
    with tempfile.TemporaryDirectory() as directory:
        settings = [setting.format(directory=directory) for setting in settings]
        with host.Mediator(programs, "cpu", settings, VALGRIND) as mediator:
            mediator.register(uuids)
            live(programs, mediator, uuids)
            status = mediator.stop()
            log = mediator.log.read_text(errors="replace")
            if status:
                found = "valgrind found errors" if status == ERROR_STATUS else "it failed"
                return f"ended with {status}: {found}\n{mediator.log_tail(80)}"
            if LEFT_OPEN.search(log):
                return f"files are left open\n{mediator.log_tail(80)}"
    return None


def main():
    host.terminate_on_signals()
    complaints = []
    for live, settings in LIVES.items():
        try:
            complaint = complaint_about(pathlib.Path(sys.argv[1]), live, settings)
        except (host.HostError, subprocess.SubprocessError, OSError) as error:
            complaint = str(error)
        if complaint:
            print(f"{live.__name__}: {complaint}")
            complaints.append(complaint)
    pathlib.Path(sys.argv[2]).write_text(
        f'<testsuites><testsuite tests="{len(LIVES)}" failures="{len(complaints)}"/></testsuites>\n')
    return len(complaints)


if __name__ == "__main__":
    sys.exit(main())

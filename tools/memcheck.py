# SPDX-License-Identifier: MIT
"""Runs the mediator through a whole life under valgrind. tools/test calls it.

Usage: memcheck.py PROGRAMS REPORT (JUnit XML, one test)

Start, a few VMs and jobs, a VM that goes, a reload, a clean end: valgrind must find no
error and no memory that is lost. The workers are not under valgrind, which cannot run
a program that locks itself in with seccomp; the worker's parts are checked through
their unit tests.
"""
import pathlib
import subprocess
import sys

import host

ERROR_STATUS = 99
VALGRIND = ("valgrind", "--quiet", "--leak-check=full", "--track-fds=yes",
            "--errors-for-leak-kinds=definite,indirect,possible",
            f"--error-exitcode={ERROR_STATUS}")
JOBS = (["ping"], ["add", "100", "200"], ["sgemm", "--n", "32"], ["info"],
        ["bench", "--count", "100", "--outstanding", "8"])


def run(programs):
    uuids = [host.vm_uuid(number) for number in range(1, 4)]
    with host.Mediator(programs, "cpu", wrapper=VALGRIND) as mediator:
        mediator.register(uuids)
        for uuid in uuids:
            for job in JOBS:
                subprocess.run([programs / "vgpu-client", "--socket", mediator.socket_of(uuid),
                                *job], check=True, stdout=subprocess.DEVNULL)
        mediator.admin("set-weight", f"--vm-uuid={uuids[0]}", "--weight=3")
        mediator.admin("remove-vm", f"--vm-uuid={uuids[2]}")
        mediator.admin("status")
        status = mediator.stop()
        if status:
            found = "valgrind found errors" if status == ERROR_STATUS else "it failed"
            print(f"the mediator ended with {status}: {found}\n{mediator.log_tail(80)}")
    return status


def main():
    host.terminate_on_signals()
    try:
        failed = bool(run(pathlib.Path(sys.argv[1])))
    except (host.HostError, subprocess.CalledProcessError) as error:
        print(error)
        failed = True
    pathlib.Path(sys.argv[2]).write_text(
        f'<testsuites><testsuite tests="1" failures="{int(failed)}"/></testsuites>\n')
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

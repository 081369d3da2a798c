# SPDX-License-Identifier: MIT
"""A worker program that a test writes, and changes while the mediator runs."""

import pathlib
import shutil
import sys

import mediator as harness


class Programs:
    """The mediator beside a worker that is a script: what it does can be changed."""

    def __init__(self, directory):
        self.directory = directory
        self.attempts_path = directory / "attempts"
        shutil.copy(harness.PROGRAM, directory / "vgpu-mediator")
        self.works()

    def script(self, line):
        path = self.directory / "vgpu-worker.new"
        path.write_text(f'#!/bin/sh\necho >>"{self.attempts_path}"\n{line}\n')
        path.chmod(0o755)
        path.rename(self.directory / "vgpu-worker")

    def works(self):
        self.script(f'exec "{harness.WORKER}" "$@"')

    def attempts(self):
        if not self.attempts_path.exists():
            return 0
        return len(self.attempts_path.read_bytes())


def hostile(programs, what):
    path = pathlib.Path(__file__).with_name("hostile_worker.py")
    programs.script(f'exec {sys.executable} "{path}" {what} "$@"')

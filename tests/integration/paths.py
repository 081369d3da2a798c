# SPDX-License-Identifier: MIT
"""Where the repository and its build are; VGPU_BUILD names another build than build/."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("VGPU_BUILD", ROOT / "build"))
MEDIATOR = BUILD / "bin" / "vgpu-mediator"
WORKER = BUILD / "bin" / "vgpu-worker"
ADMIN = BUILD / "bin" / "vgpu-admin"
CLIENT = BUILD / "bin" / "vgpu-client"
SIM = BUILD / "bin" / "vgpu-sim"
STANDIN = BUILD / "tests" / "standin"


def has_sanitizer(program):
    """Whether it is of a build whose memory and speed mean nothing."""
    code = program.read_bytes()
    return b"__asan_init" in code or b"__tsan_init" in code

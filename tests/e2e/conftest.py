# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: the guest's kernel and initramfs, and short paths."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

from guest import BUILD, ROOT, Guest  # noqa: E402


def tool(name, *arguments):
    """Runs a tool of the repository; returns the last line of its output."""
    done = subprocess.run([ROOT / "tools" / name, *map(str, arguments)], check=True,
                          stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


@pytest.fixture(scope="session")
def qemu():
    """The QEMU that has the device: VGPU_QEMU, or the wrapper, made if need be."""
    if "VGPU_QEMU" in os.environ:
        return os.environ["VGPU_QEMU"]
    tool("qemu-device", BUILD)
    return BUILD / "bin" / "qemu-vgpu"


@pytest.fixture(scope="session")
def kernel():
    return tool("guest-kernel")


@pytest.fixture(scope="session")
def make_initramfs(tmp_path_factory):
    """make_initramfs(PROGRAM...): an initramfs with the mmio program and static PROGRAMs."""
    directory = tmp_path_factory.mktemp("initramfs")
    mmio = directory / "mmio"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", f"-I{ROOT / 'include'}",
                    ROOT / "tests" / "e2e" / "mmio.c", "-o", mmio], check=True)

    def make(*programs):
        name = "-".join(["mmio", *(pathlib.Path(program).name for program in programs)])
        path = directory / f"{name}.gz"
        if not path.exists():
            tool("initramfs", path, mmio, *programs)
        return path

    return make


@pytest.fixture(scope="session")
def initramfs(make_initramfs):
    return make_initramfs()


@pytest.fixture(scope="session")
def make_guest(qemu, kernel, initramfs):
    """make_guest(directory, devices): a Guest, not started."""
    return lambda directory, devices=(), **options: Guest(
        directory, kernel, initramfs, devices, qemu=qemu, **options)


@pytest.fixture(scope="module")
def module_dir():
    """A directory whose path is short enough for the sockets in it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vgpu-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def short_dir():
    path = pathlib.Path(tempfile.mkdtemp(prefix="vgpu-"))
    yield path
    shutil.rmtree(path)

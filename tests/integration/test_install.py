# SPDX-License-Identifier: MIT
"""What `meson install` puts where, and that a program in a guest can be built with it."""

import shutil
import subprocess

import pytest

from paths import BUILD, MEDIATOR, ROOT, has_sanitizer

PROGRAM = """
#include <stdio.h>
#include <vgpu/vgpu.h>

int main(void)
{
	puts(vgpu_strerror(VGPU_E_NO_DEVICE));
	return 0;
}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    if has_sanitizer(MEDIATOR):
        pytest.skip("nobody installs a build with a sanitizer")
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root],
                   check=True, capture_output=True)
    return root


def test_files(installed):
    names = {path.name for path in installed.rglob("*") if path.is_file()}
    assert {"vgpu-mediator", "vgpu-worker", "vgpu-admin", "vgpu-client", "vgpu-sim",
            "vgpu-mediator.service", "vgpu.conf", "mediator.conf", "vgpu.h", "protocol.h",
            "sgemm.h", "libvgpu.a", "vgpu.pc"} <= names
    assert {path.name for path in (ROOT / "man").glob("*.[18]")} <= names
    assert not [name for name in names if name.startswith(("bench-", "test_"))]


def test_the_library_takes_no_names_but_its_own(installed):
    archive, = installed.rglob("libvgpu.a")
    listed = subprocess.run(["nm", "--extern-only", "--defined-only", "--format=posix", archive],
                            check=True, capture_output=True, text=True).stdout
    names = [line.split()[0] for line in listed.splitlines() if " T " in line or " D " in line]
    assert "vgpu_call" in names
    assert [name for name in names if not name.startswith("vgpu_")] == []


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="no pkg-config")
def test_a_program_of_a_guest_can_be_built(installed, tmp_path):
    pc, = installed.rglob("vgpu.pc")
    flags = subprocess.run(
        ["pkg-config", "--define-variable", f"prefix={installed}/usr/local", "--cflags", "--libs",
         pc], check=True, capture_output=True, text=True).stdout.split()
    (tmp_path / "guest.c").write_text(PROGRAM)
    subprocess.run(["cc", "-Wall", "-Werror", "-std=c99", tmp_path / "guest.c", *flags, "-o",
                    tmp_path / "guest"], check=True)
    done = subprocess.run([tmp_path / "guest"], check=True, capture_output=True, text=True)
    assert "no vgpu device" in done.stdout

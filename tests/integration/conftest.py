# SPDX-License-Identifier: MIT
"""Fixtures that the integration tests share."""

import contextlib
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import admin_host
import client_peer
import gpu_story
import mediator as harness
import worker_programs
from paths import ROOT

# A bundle has the programs, but not the sources that these look into.
if not (ROOT / "meson.build").exists():
    collect_ignore = [
        "test_docs.py",
        "test_gpu_report.py",
        "test_install.py",
        "test_kernels.py",
        "test_sim_measured.py",
        "test_tour.py",
    ]


@pytest.fixture
def directory():
    """A directory of the test's own with a name so short that socket paths fit."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vgpu-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def new_mediator(directory):
    """new_mediator(name) makes a Mediator that is not started yet."""
    with contextlib.ExitStack() as stack:

        def make(name="m"):
            path = directory / name
            path.mkdir()
            return stack.enter_context(contextlib.closing(harness.Mediator(path)))

        yield make


@pytest.fixture
def mediator(new_mediator):
    """A mediator that runs, with the cpu backend and operations for tests."""
    return new_mediator().start()


@pytest.fixture
def new_story(new_mediator):
    """new_story(**settings) begins a story of one GPU."""
    return lambda **settings: gpu_story.Story(new_mediator(), **settings)


@pytest.fixture
def programs(directory, monkeypatch):
    """Mediators of this test run beside a worker that can be changed."""
    path = directory / "bin"
    path.mkdir()
    made = worker_programs.Programs(path)
    monkeypatch.setattr(harness, "PROGRAM", path / "vgpu-mediator")
    return made


@pytest.fixture
def scripted(tmp_path):
    """scripted(script) serves one connection with script(Peer) and returns the socket's path."""
    with client_peer.mediators(tmp_path) as start:
        yield start


@pytest.fixture
def host(directory):
    """Where vgpu-admin runs: a directory for a registry, an xe, a mediator's socket."""
    return admin_host.Host(directory)


@pytest.fixture
def registered(host):
    """Two VMs, one in each pool."""
    host.ok("register-vm", f"--vm-uuid={admin_host.UUID1}", "--name=web", "--pool=A")
    host.ok(
        "register-vm", f"--vm-uuid={admin_host.UUID2}", "--name=db", "--pool=B", "--priority=high"
    )
    return host


@pytest.fixture(scope="session")
def namespaces():
    """Tests that mount need a mount namespace of their own."""
    probe = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("no mount namespaces here")

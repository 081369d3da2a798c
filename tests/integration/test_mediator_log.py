# SPDX-License-Identifier: MIT
"""The mediator's log: what workers print there is told from its own lines, and nobody waits for it."""

import contextlib
import fcntl
import os

import mediator as harness
import wire


def test_what_a_worker_prints_is_told_from_our_own_lines(new_mediator, programs):
    mediator = new_mediator().start()
    uuid = mediator.add_vm()
    forged = [
        r"<3>vgpu-mediator: error: VM x (y): quarantined",
        r"vgpu-worker: error: a \033[2Jlie",
        r"vgpu-worker: unheard: of",
        r"\302\233 and \200",
        r"vgpu-worker: debug: not asked for",
        r"x" * 600,
    ]
    script = "".join(f"printf '{line}\\n' >&2\n" for line in forged)
    programs.script(f'{script}exec "{harness.WORKER}" "$@"')
    mediator.connect(uuid).works()
    label = f"VM vm1 ({uuid}): worker {mediator.worker_pid(uuid)}"
    mediator.says(f"{label}: {'x' * 88}\n")
    log = mediator.log().splitlines()
    assert all(line.startswith("vgpu-mediator: ") and line.isprintable() for line in log)
    assert f"vgpu-mediator: warning: {label}: {forged[0]}" in log
    assert f"vgpu-mediator: error: {label}: a ?[2Jlie" in log
    assert f"vgpu-mediator: warning: {label}: vgpu-worker: unheard: of" in log
    assert f"vgpu-mediator: warning: {label}: ?? and ?" in log
    assert f"vgpu-mediator: warning: {label}: {'x' * 512}" in log
    assert not any("not asked for" in line for line in log)


def test_a_worker_that_prints_without_end(new_mediator, programs):
    """Its lines stop, also when a new worker takes over, and nobody else notices."""
    mediator = new_mediator().start()
    uuid, other = mediator.add_vms(1, 2)
    mediator.connect(other).works()
    programs.script(f'yes forged >&2 & exec "{harness.WORKER}" "$@"')
    with harness.Neighbour(mediator, other) as neighbour:
        device = mediator.connect(uuid)
        for _ in range(3):
            device.works()
            assert device.call(wire.OP_FAULT).code == wire.CUDA
        neighbour.works()
    # The rest of a minute's lines would come with the next interval at the earliest.
    assert 1 <= mediator.log().count("forged") <= 2 * 20


def test_a_log_that_nobody_reads(new_mediator):
    """Lines are lost, jobs are not; the number of lost ones is told."""
    mediator = new_mediator()
    path = mediator.directory / "fifo"
    os.mkfifo(path)
    log = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
        mediator.start(prefix=["sh", "-c", f'exec "$@" 2>{path}', "sh"], fault_points=0)
        uuid = mediator.add_vm()
        device = mediator.connect(uuid)
        for _ in range(30):
            device.works()
            assert device.call(wire.OP_FAULT).code == wire.CUDA
        read = os.read(log, 65536)
        assert b"log lines lost" not in read
        device.works()
        read += harness.wait_for(lambda: readable(log), "the next line")
        assert b"log lines lost: not read" in read
    finally:
        os.close(log)


def readable(fd):
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 65536)
    return b""

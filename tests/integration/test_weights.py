# SPDX-License-Identifier: MIT
"""What operators see of sharing: shares, demand and the parts of the scheduler's order,
the same from status, weights, metrics and vgpu-admin."""

import json
import re
import subprocess

import pytest

import mediator as harness
import wire
from paths import ADMIN

HOUR_MS = 3_600_000


def admin(mediator, *arguments, status=0):
    done = subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.decode()


def shares(mediator, key="share_target"):
    """From each that tells it, {uuid: share}; all of them the same."""
    status = {vm["vm_uuid"]: vm[key] for vm in mediator.status()["vms"]}
    rows = json.loads(admin(mediator, "--json", "show-weights"))["vms"]
    text = mediator.call("show-metrics")["text"]
    metric = {"share": "vgpu_share_ratio", "share_target": "vgpu_share_target_ratio"}[key]
    series = re.findall(metric + r'\{vm_uuid="([^"]+)"\} (\S+)', text)
    assert {vm["vm_uuid"]: vm[key] for vm in rows} == pytest.approx(status)
    assert {uuid: float(value) for uuid, value in series} == pytest.approx(status)
    return status


def test_who_claims_what(mediator):
    """Weight times factor, among those whose jobs are taken."""
    low, high, other = (
        mediator.add_vm(1, weight=2, priority=0),
        mediator.add_vm(2, weight=1.5, priority=2),
        mediator.add_vm(3, weight=100, priority=2, pool_id="B"),
    )
    assert shares(mediator) == pytest.approx({low: 2 / 408, high: 6 / 408, other: 400 / 408})
    mediator.set_vm(other, quarantined=1)
    assert shares(mediator) == pytest.approx({low: 0.25, high: 0.75, other: 0})
    mediator.set_vm(other, quarantined=0)
    admin(mediator, "set-enabled", "--pool=B", "--enabled=no")
    assert shares(mediator) == pytest.approx({low: 0.25, high: 0.75, other: 0})
    table = admin(mediator, "show-weights", "--pool=A")
    assert re.search(r"vm1 +A +0 +low +2\.00 +25\.0% +0\.0%", table)
    assert other not in table


def test_each_gpu_is_shared_for_itself(new_mediator):
    if not (harness.STANDIN / "libcuda.so.1").exists():
        pytest.skip("the stand-in for CUDA is not built")
    mediator = new_mediator()
    mediator.environment = {"LD_LIBRARY_PATH": str(harness.STANDIN), "VGPU_STANDIN_DEVICES": "2"}
    mediator.start(backend="cuda", **{"pool.A.gpus": "0", "pool.B.gpus": "1"})
    one, two = mediator.add_vms(1, 2, weight=3)
    alone = mediator.add_vm(3, pool_id="B")
    assert shares(mediator) == pytest.approx({one: 0.5, two: 0.5, alone: 1})


def test_without_a_mediator(new_mediator):
    """The registry does not know the GPUs, and says what it takes for granted."""
    mediator = new_mediator().start()
    mediator.add_vms(1, 2)
    mediator.stop()
    done = subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, "--json",
         "show-weights"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    rows = json.loads(done.stdout)["vms"]
    assert [(vm["share_target"], vm["share"]) for vm in rows] == [(0.5, None)] * 2
    assert b"one GPU for all pools" in done.stderr and b"not running" in done.stderr
    admin(mediator, "show-weights", "--verbose", status=5)


def test_the_order_and_its_parts(new_mediator):
    """A VM waits behind one that holds the GPU: every part of its key is told."""
    mediator = new_mediator().start(overlap_max=1, job_timeout_ms=HOUR_MS)
    holder, waiting, idle = (
        mediator.add_vm(1),
        mediator.add_vm(2, weight=2.5, priority=2),
        mediator.add_vm(3),
    )
    device = mediator.connect(waiting)
    # It has had a turn of a known length.
    assert device.call(wire.OP_SPIN, [3000]).code == wire.OK
    mediator.connect(holder).submit(wire.OP_HANG)
    harness.wait_for(lambda: mediator.vm_status(holder)["in_flight"], "the job that hangs")
    device.submit_all({n: (wire.OP_CUDA_KERNEL, (1, n)) for n in range(2, 18)})

    def rows():
        found = json.loads(admin(mediator, "--json", "show-weights", "--verbose"))["vms"]
        return {vm["vm_uuid"]: vm for vm in found}

    harness.wait_for(lambda: rows()[waiting]["queued"] == 16, "sixteen jobs in line")
    vm = rows()[waiting]
    assert (vm["turn"], vm["queued"], vm["in_flight"]) == ("waiting", 16, 0)
    assert (vm["weight"], vm["priority_factor"], vm["phi"]) == (2.5, 4, 10.0)
    assert vm["turn_average_us"] >= 3000
    assert 0 <= vm["boost"] <= 0.5
    estimate_ms = min(vm["turn_average_us"] / 1000, 64)
    assert vm["key_ms"] == pytest.approx(
        vm["start_ms"] + estimate_ms * (1 - vm["boost"]) / vm["phi"], abs=0.001
    )
    # It goes on waiting, and that is seen.
    harness.wait_for(lambda: rows()[waiting]["head_wait_us"] > vm["head_wait_us"], "its wait")
    assert rows()[waiting]["key_ms"] == vm["key_ms"]
    assert (rows()[holder]["turn"], rows()[holder]["in_flight"]) == ("open", 1)
    assert [rows()[idle][key] for key in ("turn", "key_ms", "head_wait_us")] == ["none", None, None]
    table = admin(mediator, "show-weights", "--verbose")
    heading, row = [line for line in table.splitlines() if "NAME" in line or "vm2" in line]
    for word in ("FACTOR", "PHI", "TURN", "QUEUED", "OLDEST", "START MS", "BOOST", "KEY MS"):
        assert word in heading
    assert "waiting" in row and f"{vm['key_ms']:.3f}" in row
    mediator.kill()  # a polite end would wait for the job that hangs


def test_rate_and_length_of_jobs(mediator):
    """Depth, submission rate and mean execution time, in tables and JSON as in metrics."""
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    for _ in range(4):
        assert device.call(wire.OP_SPIN, [5000]).code == wire.OK

    def row(command):
        (vm,) = json.loads(admin(mediator, "--json", command))["vms"]
        return vm

    harness.wait_for(lambda: row("status")["submission_rate"] > 0, "a rate")
    for command in ("status", "show-metrics"):
        vm = row(command)
        assert vm["job_average_us"] >= 5000 and vm["submission_rate"] > 0
        assert (vm["submitted"], vm["queue_depth"]) == (4, 0)
        table = admin(mediator, command)
        assert "JOBS/S" in table and "MEAN JOB" in table
        assert f"{vm['job_average_us'] / 1000:.1f} ms" in table
    text = mediator.call("show-metrics")["text"]
    average = re.search(r"vgpu_job_average_seconds\{[^}]*\} (\S+)", text).group(1)
    assert float(average) * 1e6 == pytest.approx(row("status")["job_average_us"], abs=1)

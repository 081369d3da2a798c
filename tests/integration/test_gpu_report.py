# SPDX-License-Identifier: MIT
"""The programs and the script that measure on a GPU, tried out on the stand-in.

Figures mean nothing here; what is checked is that every step works, that the accounts of
the load generator add up, and that a case which fails leaves the others alone.
"""

import json
import os
import subprocess
import sys

import pytest

from mediator import LIMIT_S
from paths import BUILD, ROOT, STANDIN, WORKER

LOAD = BUILD / "bin" / "bench-gpu-load"
NATIVE = BUILD / "bin" / "bench-gpu-native"
REPORT = ROOT / "tests" / "bench" / "gpu_report.py"
DONE, REFUSED, CUDA = "0", "10", "5"


def run(command, **environment):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT_S,
        env={**os.environ, **environment},
    )


def result_of(done):
    """VMs by name of what a load program printed."""
    assert done.returncode == 0, done.stderr
    begun, text = done.stdout.splitlines()
    assert begun.startswith("begun ")
    result = json.loads(text)
    return result, {vm["name"]: vm for vm in result["vms"]}


def load(mediator, *texts, seconds=0.5):
    return result_of(
        run([LOAD, "--ramp", 0.1, "--seconds", seconds, "--admin", mediator.admin_path, *texts])
    )


def test_accounts_of_a_load_add_up(mediator):
    first, second = mediator.add_vms(1, 2)
    result, vms = load(
        mediator,
        f"name=a,socket={mediator.socket_of(first)},us=200-400,depth=4",
        f"name=b,socket={mediator.socket_of(second)},us=100,period=5000,depth=64,samples=1",
    )
    for vm in vms.values():
        assert vm["codes"] == {DONE: vm["done"]}
        assert vm["unanswered"] == 0
        assert sum(vm["bucket_done"]) == vm["done"] == vm["latency_us"]["count"] > 0
        assert sum(vm["bucket_work_us"]) == vm["work_us"]
    assert 200 * vms["a"]["done"] <= vms["a"]["work_us"] <= 400 * vms["a"]["done"]
    assert len(vms["b"]["samples"]) == vms["b"]["done"] <= 121
    before, after = ({vm["vm_name"]: vm for vm in result[key]["result"]["vms"]}
                     for key in ("before", "after"))
    assert after["vm1"]["charged_s"] > before["vm1"]["charged_s"]


def test_refused_jobs_are_retried_by_the_rule(mediator):
    uuid = mediator.add_vm(1, max_jobs_per_sec=20, burst=1)
    path = mediator.socket_of(uuid)
    _, vms = load(mediator, f"name=a,socket={path},op=nop,depth=8,retry=1", seconds=1.5)
    assert vms["a"]["refusals"] > 0
    assert vms["a"]["early_retries"] == 0
    assert 0 < vms["a"]["done"] <= 32
    _, vms = load(mediator, f"name=a,socket={path},op=nop,depth=8,period=5000")
    assert vms["a"]["codes"][REFUSED] == vms["a"]["refusals"] > 0


@pytest.mark.parametrize("text", ["name", "depth=0", "us=5-3", "op=dance", "colour=red"])
def test_a_wrong_load_is_refused(text):
    done = run([NATIVE, "--backend", "cpu", text])
    assert done.returncode == 1
    assert "is no part of a load" in done.stderr


def test_native_replaces_and_kills_processes():
    done = run(
        [NATIVE, "--seconds", 1, "name=fault,us=500,fault_every=20",
         "name=hang,op=hang,start=100,kill=300", "name=good,us=500,depth=4"],
        LD_LIBRARY_PATH=str(STANDIN),
    )
    _, vms = result_of(done)
    assert vms["fault"]["codes"][CUDA] > 1
    assert vms["hang"]["failures"][0]["at_ms"] >= 300
    assert list(vms["good"]["codes"]) == [DONE]


def test_calibration_is_for_gpus():
    done = run([WORKER, "--calibrate", "--backend", "cpu"])
    assert done.returncode != 0
    assert "time slices of a GPU" in done.stderr
    done = run([WORKER, "--calibrate"], LD_LIBRARY_PATH=str(STANDIN),
               VGPU_STANDIN_KERNEL="vgpu_watch", VGPU_STANDIN_THEN="die")
    assert done.returncode != 0
    assert "slice_us" not in done.stdout


def test_report(tmp_path):
    done = run(
        [sys.executable, REPORT, "--backend", "cuda", "--only", "a,g,h,l", "--seconds-scale",
         0.02, "--output", tmp_path, "--programs", BUILD / "bin"],
        LD_LIBRARY_PATH=str(STANDIN),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "report.json").read_text())
    tables = {table["table"]: table for table in data["tables"]}
    assert list(tables) == ["a", "g", "h", "l"]
    shares = [float(row[3].rstrip(" %")) for row in tables["a"]["rows"] if row[1].endswith(" ms")]
    assert len(shares) == 8 and abs(sum(shares) - 200) < 0.1
    assert [row[1:2] + row[4:5] for row in tables["g"]["rows"]] == [["4", "0"]] * 5
    before, filled, after, *driver = tables["h"]["rows"]
    for full, empty in ((filled, before), (filled, after), driver):
        assert full[2] == full[3] == full[4] != "0"
        assert empty[3] == empty[4] == "0"
    # The stand-in's slices take 2 ms; from one's to the next one's less than another.
    slice_us, = (int(note.split(" = ")[1]) for note in tables["l"]["notes"]
                 if note.startswith("slice_us = "))
    assert 2010 <= slice_us <= 3010
    assert data["runs"]
    for key, table in tables.items():
        assert f"### {key}. {table['title']}" in (tmp_path / "report.md").read_text()


def test_a_case_that_fails_leaves_a_note(tmp_path):
    done = run(
        [sys.executable, REPORT, "--backend", "cuda", "--only", "h,l", "--seconds-scale", 0.02,
         "--output", tmp_path, "--programs", BUILD / "bin"],
        LD_LIBRARY_PATH=str(STANDIN),
        VGPU_STANDIN_CONTEXT_ERROR="999",
    )
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    assert [table["rows"] for table in tables] == [[], []]
    # What failed, of workers and of the driver alone, and how long it took.
    assert [len(table["notes"]) for table in tables] == [3, 2]


def test_time_that_is_left_is_kept(tmp_path):
    done = run(
        [sys.executable, REPORT, "--backend", "cpu", "--only", "b", "--budget", 1,
         "--output", tmp_path, "--programs", BUILD / "bin"],
    )
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "report.json").read_text())["tables"][0]
    assert "ours: no time left" in table["notes"]
    assert all(cell == "–" for row in table["rows"] for cell in row[2:])

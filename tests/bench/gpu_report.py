#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures on a real GPU what the mediator promises, beside the driver alone and MPS.

Each table is one of the measures below; each is robust by itself: a case that fails leaves
a note and the others go on. Reports are written after every table, so that what was
measured survives an end from outside.

Run it as run-report of a bundle (tools/bundle), or from the repository after tools/build.
With --backend cpu the tables that make sense without a GPU can be tried out.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import gpu_rig
import gpu_tables_delay
import gpu_tables_fault
import gpu_tables_limit
import gpu_tables_share
import host

_ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(os.environ.get("VGPU_BUILD", _ROOT / "build")) / "bin"

# Key: (what it measures, function, usual seconds with a GPU at --seconds-scale 1).
TABLES = {
    "a": ("shares by weight, jobs of different lengths", gpu_tables_share.weights, 260),
    "b": ("1:1:1:97 with 500 ms jobs", gpu_tables_share.lopsided, 120),
    "c": ("busy share with 100 us jobs, by quantum", gpu_tables_share.busy, 130),
    "d": ("extra delay of a light VM", gpu_tables_delay.light, 450),
    "e": ("a HANG beside others", gpu_tables_fault.hang, 260),
    "f": ("a VM that faults all the time", gpu_tables_fault.faults, 130),
    "g": ("watchdog", gpu_tables_fault.watchdog, 15),
    "h": ("memory of a killed worker", gpu_tables_fault.residue, 120),
    "i": ("cheating VMs", gpu_tables_share.cheats, 110),
    "j": ("limits and back-pressure", gpu_tables_limit.back_pressure, 60),
    "k": ("round trips of empty jobs", gpu_tables_delay.round_trips, 110),
    "l": ("slices and hand-over", gpu_tables_delay.calibration, 15),
}
WITHOUT_GPU = ("a", "b", "c", "d", "e", "f", "g", "i", "j", "k")



def use_libraries(programs):
    """Ours first, then where drivers lie that ldconfig does not know of."""
    path = [programs.parent / "lib", os.environ.get("LD_LIBRARY_PATH"), "/usr/local/nvidia/lib64"]
    os.environ["LD_LIBRARY_PATH"] = ":".join(str(p) for p in path if p)


def describe_gpu():
    query = ["nvidia-smi", "--query-gpu=name,driver_version,mig.mode.current,compute_mode",
             "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "no nvidia-smi"


def choose_backend(wanted, programs):
    if wanted != "auto":
        return wanted
    probe = subprocess.run([str(programs / "vgpu-worker"), "--probe", "--backend", "cuda"],
                           capture_output=True, timeout=60)
    return "cuda" if probe.returncode == 0 else "cpu"


class Report:
    """The files, written anew after each table."""

    def __init__(self, directory, head, rig):
        self._directory, self._head, self._rig, self._tables = directory, head, rig, []

    def add(self, table, seconds):
        table.note(f"Measured in {seconds:.0f} s.")
        self._tables.append(table)
        print(table.markdown(), flush=True)
        text = "\n".join([f"- {line}" for line in self._head] + [""]
                         + [t.markdown() for t in self._tables])
        (self._directory / "report.md").write_text(text)
        data = {"machine": self._head, "tables": [t.data() for t in self._tables],
                "runs": self._rig.raw}
        (self._directory / "report.json").write_text(json.dumps(data))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="tables, like a,c,l (default: all that make sense)")
    parser.add_argument("--list", action="store_true", help="the tables and how long they take")
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds-scale", type=float, default=1.0, metavar="X",
                        help="measure X times as long (default 1)")
    parser.add_argument("--budget", type=float, metavar="S",
                        help="start nothing that would end later than S seconds from now")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu-report"),
                        help="directory for report.md, report.json, mediator.log")
    parser.add_argument("--programs", type=pathlib.Path, default=PROGRAMS,
                        help="directory of the programs (default: the build's)")
    parser.add_argument("--no-mps", action="store_true", help="do not try MPS")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.list:
        for key, (what, _, seconds) in TABLES.items():
            print(f"{key}  {seconds:4d} s  {what}")
        return
    host.terminate_on_signals()
    programs = arguments.programs.resolve()
    use_libraries(programs)
    backend = choose_backend(arguments.backend, programs)
    keys = arguments.only.split(",") if arguments.only else (
        list(TABLES) if backend == "cuda" else WITHOUT_GPU)
    unknown = [key for key in keys if key not in TABLES]
    if unknown:
        sys.exit(f"gpu_report: no table {', '.join(unknown)} (see --list)")
    arguments.output.mkdir(parents=True, exist_ok=True)
    rig = gpu_rig.Rig(programs, backend, arguments.output, arguments.seconds_scale,
                      arguments.budget, not arguments.no_mps)
    head = [f"Machine: {host.describe_machine()}",
            f"GPU: {describe_gpu()}", f"Backend: {backend}; transport: VM sockets, no guest",
            f"Seconds scale: {arguments.seconds_scale}", f"MPS: {rig.find_mps() or 'works'}"]
    print("\n".join(head), "\n", flush=True)
    report = Report(arguments.output, head, rig)
    for key in keys:
        start = time.monotonic()
        table = gpu_rig.Table(key, TABLES[key][0], [])
        gpu_rig.attempt(table, "the table", lambda: TABLES[key][1](rig, table))
        report.add(table, time.monotonic() - start)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("gpu_report: interrupted")

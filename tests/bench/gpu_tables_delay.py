# SPDX-License-Identifier: MIT
"""Tables about delays: d, k and l of gpu_report.py."""
import json
import pathlib
import subprocess
import sys

import host
from gpu_rig import CaseError, attempt, milliseconds, percent

# ---- d -----------------------------------------------------------------------

# Name, what it does, seconds measured (ours, driver, MPS).
LIGHTS = (
    ("0.1 ms every 5 ms", {"us": 100, "period": 5000, "jitter": 20, "depth": 64}, (6, 4, 4)),
    ("2 ms every 100 ms", {"us": 2000, "period": 100000, "jitter": 20, "depth": 64}, (12, 6, 6)),
)
LENGTHS_MS = (1, 20, 500)
NEIGHBOURS = (1, 8)


def _extra(result, alone_us):
    """(p50, p99, max) of the light VM's latency beyond what it takes alone, in us."""
    if not result or alone_us is None:
        return None
    latency = result.vms["light"]["latency_us"]
    if not latency["count"]:
        return None
    return [max(0.0, latency[key] - alone_us) for key in ("p50", "p99", "max")]


def _alone(result):
    return result.vms["light"]["latency_us"]["p50"] if result else None


def _cell(extra):
    return " / ".join(milliseconds(us) for us in extra) if extra else "–"


def light(rig, table):
    table.columns = ["neighbours", "light VM", "ours: p50 / p99 / max ms",
                     "driver: p50 / p99 / max ms", "MPS: p50 / p99 / max ms",
                     "ours: light charged (its fair share)"]
    alone = {}

    def measure_alone():
        with rig.session(light={}) as session:
            for name, keys, _ in LIGHTS:
                alone[name, "ours"] = _alone(session.load(("light", keys), seconds=3))

    attempt(table, "alone", measure_alone)
    for name, keys, _ in LIGHTS:
        loads = [("light", keys)]
        alone[name, "driver"] = _alone(attempt(
            table, "alone, driver", lambda: rig.native(*loads, seconds=3)))
        alone[name, "mps"] = _alone(attempt(table, "MPS", lambda: rig.mps(*loads, seconds=3)))
    for count in NEIGHBOURS:
        for length_ms in LENGTHS_MS:
            _beside(rig, table, count, length_ms, alone)
    for name, _, _ in LIGHTS:
        table.note(f"{name} takes alone (p50, ms): "
                   + ", ".join(f"{way} {milliseconds(alone.get((name, way)), 3)}"
                               for way in ("ours", "driver", "mps")))
    table.note("Extra: from the planned time to the answer, less the median of the same VM alone. "
               "Neighbours always have the next job under way. "
               "Aim: p99 at most 1 ms beside long jobs.")
    table.note("A light VM is charged its hand-overs too; one that is charged as much as its fair "
               "share is not light, and waits like the others.")


def _beside(rig, table, count, length_ms, alone):
    what = f"{count} × {length_ms} ms"
    heavy = [(f"n{i}", {"us": length_ms * 1000, "depth": 2}) for i in range(count)]
    # The neighbours' first jobs are short, to start their workers: what they send next overlaps.
    ramp = 1 + 3 * count * length_ms / 1000
    ours = {}

    def measure_ours():
        with rig.session(light={}, **{name: {} for name, _ in heavy}) as session:
            for name, keys, (seconds, _, _) in LIGHTS:
                session.idle()
                ours[name] = session.load(("light", keys), *heavy, seconds=seconds, ramp=ramp)

    attempt(table, what, measure_ours)
    for name, keys, (_, driver_s, mps_s) in LIGHTS:
        loads = [("light", keys), *heavy]
        driver = attempt(table, f"{what}, driver",
                         lambda: rig.native(*loads, seconds=driver_s, ramp=2))
        mps = attempt(table, f"{what}, MPS", lambda: rig.mps(*loads, seconds=mps_s, ramp=2))
        extras = [_extra(result, alone.get((name, way))) for result, way in
                  ((ours.get(name), "ours"), (driver, "driver"), (mps, "mps"))]
        mine = ours.get(name)
        charged = mine and mine.charged_s("light") / mine.status_seconds
        table.row(what, name, *map(_cell, extras),
                  f"{percent(charged)} ({percent(1 / (count + 1))})")


# ---- k -----------------------------------------------------------------------


def round_trips(rig, table):
    table.columns = ["VMs", "relay p50 / p99 us", "relay jobs/s", "ours p50 / p99 us",
                     "ours jobs/s", "ours / relay p50"]
    seconds, rounds = max(1, round(rig.scaled(2))), 3
    rig.check_time(3 * 2 * rounds * seconds + 50)
    done = subprocess.run(
        [sys.executable, str(pathlib.Path(host.__file__).with_name("bench.py")), "--programs",
         str(rig.programs), "--backend", rig.backend, "--seconds", str(seconds), "--rounds",
         str(rounds), "--json"], capture_output=True, text=True, timeout=400)
    if done.returncode:
        raise CaseError(done.stderr.strip()[-400:])
    result = json.loads(done.stdout)
    for one in result["round_trips"]:
        relay, ours = one["relay"], one["vgpu"]
        table.row(one["vms"], f"{relay['p50_us']:.1f} / {relay['p99_us']:.1f}",
                  f"{relay['per_second']:.0f}", f"{ours['p50_us']:.1f} / {ours['p99_us']:.1f}",
                  f"{ours['per_second']:.0f}", f"{one['ratio_p50']:.2f}")
    smallest = result["smallest"]
    table.note(f"An empty job needs no GPU. One addition on it, one VM: p50 "
               f"{smallest['p50_us']:.1f} us, p99 {smallest['p99_us']:.1f} us")
    for way, figures in (result["native"] or {}).items():
        table.note(f"Native launch and wait, {way}: p50 {figures['p50_us']:.1f} us, "
                   f"p99 {figures['p99_us']:.1f} us")
    memory = result["memory"]
    table.note(f"{memory['vms']} idle VMs: mediator {memory['mediator_rss_kib'] / 1024:.1f} MiB, "
               f"each worker {memory['worker_rss_kib'] / 1024:.1f} MiB resident")


# ---- l -----------------------------------------------------------------------


def calibration(rig, table):
    table.columns = ["measured, us", "n", "p1", "p50", "p99", "max"]
    rig.check_time(15)
    done = subprocess.run([str(rig.programs / "vgpu-worker"), "--calibrate"], capture_output=True,
                          text=True, timeout=150)
    if done.returncode:
        raise CaseError(done.stderr.strip()[-400:])
    for line in done.stdout.splitlines()[1:]:
        words = line.split()
        if len(words) > 5 and words[-1][0].isdigit() and "counts" not in line:
            table.row(" ".join(words[:-5]), *words[-5:])
        elif line:
            table.note(line)

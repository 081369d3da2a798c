# SPDX-License-Identifier: MIT
"""Tables about faults, hangs and what is left of them: e, f, g and h of gpu_report.py."""
import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time

from gpu_rig import (OP_FAULT, OP_HANG, OP_NOP, CaseError, attempt, milliseconds, percent,
                     quantile)

CODE_OK, CODE_TIMEOUT, CODE_CUDA, CODE_QUARANTINED = 0x00, 0x04, 0x05, 0x0B


def process_alive(pid):
    """Whether it runs or still has to be reaped by its parent."""
    return pathlib.Path(f"/proc/{pid}").exists()


# ---- e -----------------------------------------------------------------------

NORMAL = [(f"n{i}", {"us": 5000, "depth": 4}) for i in range(4)]
LIGHT = ("light", {"us": 100, "period": 5000, "jitter": 20, "depth": 64, "samples": 1})
HANG_LIMIT_MS = 5000  # at scale 1, as all of these
HANG_AT_MS = 5000
KILL_AT_MS = 12000
FAULTS_FROM_MS = 3000


def _watch_death(session, found):
    """Notes when the worker that hangs is gone."""
    def act(begun_ns):
        pid = None
        while pid is None:
            pid = session.worker_pid("hang")
            time.sleep(0.05)
        deadline = time.monotonic() + 600
        while process_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        found["gone_ms"] = (time.monotonic_ns() - begun_ns) / 1e6
    return act


def _phases(result, begin_ms, end_ms):
    """By phase: (neighbours' work per second, the least of one, light p50, p99)."""
    spans = {"before": (100, begin_ms), "during": (begin_ms + 100, end_ms - 100),
             "after": (end_ms + 300, result.seconds * 1e3)}
    rows = {}
    for phase, (from_ms, to_ms) in spans.items():
        rates = [result.work_rate(name, from_ms, to_ms) for name, _ in NORMAL]
        tail = result.samples("light", from_ms, to_ms)
        if None not in rates:
            rows[phase] = (sum(rates), min(rates), quantile(tail, 0.5), quantile(tail, 0.99))
    return rows


def _hang_rows(table, way, result, begin_ms):
    failures = result.vms["hang"]["failures"]
    if not failures:
        raise CaseError(f"{way}: the hang was not ended")
    end_ms = failures[0]["at_ms"]
    rows = _phases(result, begin_ms, end_ms)
    for phase, (work, least, p50, p99) in rows.items():
        kept = work / rows["before"][0] if rows["before"][0] else None
        table.row(way, phase, percent(work), percent(least), percent(kept),
                  milliseconds(p50), milliseconds(p99))
    worst = max(result.samples("light", end_ms, end_ms + 1000), default=None)
    table.note(f"{way}: ended {(end_ms - begin_ms) / 1e3:.2f} s after it began; the light VM's "
               f"worst latency in the second after: {milliseconds(worst)} ms; errors of the others: "
               f"{sum(result.errors(name) for name in result.vms if name != 'hang')}")
    return end_ms


def hang(rig, table):
    table.columns = ["way", "phase", "4 VMs: work per second", "the least of one",
                     "kept of before", "light p50 ms", "light p99 ms"]
    begin_ms, limit_ms = (round(rig.scaled(ms / 1e3) * 1e3) for ms in (HANG_AT_MS, HANG_LIMIT_MS))
    hanging = ("hang", {"op": "hang", "start": begin_ms, "count": 1})
    found = {}

    def ours():
        vms = {"hang": {"timeout": limit_ms}, "light": {}, **{name: {} for name, _ in NORMAL}}
        with rig.session("quarantine_threshold=1000000", **vms) as session:
            return session.load(hanging, LIGHT, *NORMAL, seconds=45, ramp=2,
                                during=_watch_death(session, found))

    mine = attempt(table, "ours", ours)
    if mine:
        end_ms = attempt(table, "ours", lambda: _hang_rows(table, "ours", mine, begin_ms))
        if end_ms and "gone_ms" in found:
            table.note(f"ours: the worker was gone {found['gone_ms'] - end_ms:.0f} ms after the "
                       "answer that said so")
    kill_ms = round(rig.scaled(KILL_AT_MS / 1e3) * 1e3)
    killed = ("hang", {"op": "hang", "start": begin_ms, "count": 1, "kill": kill_ms})
    for way, run in (("driver", rig.native), ("MPS", rig.mps)):
        def other(run=run):
            return run(killed, LIGHT, *NORMAL, seconds=16, ramp=1)

        result = attempt(table, way, other)
        if result:
            attempt(table, way, lambda: _hang_rows(table, way, result, begin_ms))
    table.note(f"The limit is {limit_ms / 1e3:g} s of charged time, here instead of 30. On the "
               "driver alone and under MPS nobody ends it: the harness kills the process "
               f"{(kill_ms - begin_ms) / 1e3:g} s after it began.")


# ---- f -----------------------------------------------------------------------


def faults(rig, table):
    table.columns = ["way", "seconds", "faults", "faults/s", "points per fault",
                     "errors of 8 neighbours", "their jobs/s before", "during"]
    neighbours = [(f"n{i}", {"us": 1000, "depth": 2}) for i in range(8)]
    begin_ms = round(rig.scaled(FAULTS_FROM_MS / 1e3) * 1e3)

    def report(way, result, points):
        faulted = result.vms["bad"]["codes"].get(str(CODE_CUDA), 0)
        seconds = result.seconds - begin_ms / 1e3
        rates = [sum(result.work_rate(name, *span) or 0 for name, _ in neighbours) * 1e3
                 for span in ((100, begin_ms), (begin_ms + 100, result.seconds * 1e3))]
        table.row(way, f"{seconds:.0f}", faulted, f"{faulted / seconds:.2f}", points,
                  sum(result.errors(name) for name, _ in neighbours), *(f"{r:.0f}" for r in rates))

    def ours():
        vms = {"bad": {}, **{name: {} for name, _ in neighbours}}
        with rig.session("quarantine_threshold=1000000", **vms) as session:
            bad = ("bad", {"op": "fault", "start": begin_ms})
            result = session.load(bad, *neighbours, seconds=60, ramp=1)
            uuid = session.vms["bad"].uuid
            rows = session.registry("SELECT count(*), min(points), max(points) FROM faults "
                                    "WHERE vm_uuid = ?", uuid)[0]
            total = session.registry("SELECT error_count FROM vms WHERE vm_uuid = ?", uuid)[0][0]
            answered = result.vms["bad"]["submitted"] - result.vms["bad"]["unanswered"]
            table.note(f"ours: the registry counts {total} faults of {answered} answers with an "
                       f"error, and keeps {rows[0]} with {rows[1]} to {rows[2]} points each")
            report("ours", result, f"{rows[1]}..{rows[2]}")

    attempt(table, "ours", ours)
    for way, run in (("driver", rig.native), ("MPS", rig.mps)):
        def other(way=way, run=run):
            bad = ("bad", {"op": "fault", "start": begin_ms})
            report(way, run(bad, *neighbours, seconds=12, ramp=1), "–")

        attempt(table, way, other)
    attempt(table, "default threshold", lambda: table.note(default_threshold(rig)))


def default_threshold(rig):
    """Faults until quarantine with the default settings; says what happened."""
    codes = []
    with rig.session(bad={}, good={}) as session, session.caller("bad") as bad:
        for _ in range(12):
            codes.append(bad.call(OP_FAULT)[0])
        row = session.registry("SELECT quarantined, error_count, quarantine_reason FROM vms "
                               "WHERE vm_name = 'bad'")[0]
        with session.caller("good") as good:
            others = good.call(OP_NOP)[0]
    count = sum(code == CODE_CUDA for code in codes)
    right = codes == [CODE_CUDA] * 9 + [CODE_QUARANTINED] * 3 and row[0] == 1 and others == CODE_OK
    return (f"default threshold: {'as it should be' if right else 'NOT AS IT SHOULD BE'}: {count} "
            f"faults, then codes {sorted(set(codes[count:]))}; registry: quarantined {row[0]}, "
            f"errors {row[1]}, {row[2]!r}; another VM's job: code {others}")


# ---- g -----------------------------------------------------------------------


def watchdog_times(rig, limit_ms=500, times=5):
    """[(code, answered after the limit in s, next job's code, its s, the one after in s)]."""
    rows = []
    with rig.session("quarantine_threshold=1000000", one={"timeout": limit_ms}) as session:
        with session.caller("one") as one:
            one.call(OP_NOP)
            for _ in range(times):
                code, seconds = one.call(OP_HANG)
                next_code, next_s = one.call(OP_NOP)
                rows.append((code, seconds - limit_ms / 1e3, next_code, next_s,
                             one.call(OP_NOP)[1]))
    return rows


def watchdog(rig, table):
    table.columns = ["HANG, limit 500 ms", "code", "answered after the limit, ms",
                     "next job of the VM, ms", "its code", "the one after, ms"]
    for number, (code, late_s, next_code, next_s, after_s) in enumerate(watchdog_times(rig), 1):
        table.row(number, code, f"{late_s * 1e3:.1f}", f"{next_s * 1e3:.0f}", next_code,
                  f"{after_s * 1e3:.2f}")
    table.note("The next job waits for the killed worker's end and the start of a new one with its "
               "GPU context.")


# ---- h -----------------------------------------------------------------------


def _residue_line(process, limit_s=180):
    timer = threading.Timer(limit_s, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if not line:
        raise CaseError(f"bench-gpu-residue ended with {process.wait()}")
    return json.loads(line)


def residue(rig, table):
    table.columns = ["process", "MiB of GPU memory", "64-bit words", "of the pattern", "not zero"]
    program = str(rig.programs / "bench-gpu-residue")
    size = [] if rig.scale >= 0.5 else [str(int(4096 * rig.scale))]
    rig.check_time(60)

    def row(what, counts):
        table.row(what, counts["mib"], counts["words"], counts["of_pattern"], counts["not_zero"])

    def start(mode):
        return subprocess.Popen([program, mode, *size], stdout=subprocess.PIPE, text=True)

    row("fresh, before", _run_look(start))
    filler = start("fill")
    try:
        row("fills it and is killed", _residue_line(filler))
    finally:
        begin = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(filler.pid, 9)
        filler.wait()
        table.note(f"reaped {(time.monotonic() - begin) * 1e3:.0f} ms after SIGKILL")
    row("fresh, right after", _run_look(start))


def _run_look(start):
    process = start("look")
    try:
        return _residue_line(process)
    finally:
        process.kill()
        process.wait()

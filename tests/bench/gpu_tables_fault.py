# SPDX-License-Identifier: MIT
"""Tables about faults, hangs and what is left of them: e, f, g and h of gpu_report.py."""
import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time

from gpu_rig import (OP_HANG, OP_NOP, OP_RESIDUE, CaseError, attempt, milliseconds, percent,
                     quantile)

CODE_CUDA, CODE_QUARANTINED = 0x05, 0x0B


def process_alive(pid):
    """Whether it runs or still has to be reaped by its parent."""
    return pathlib.Path(f"/proc/{pid}").exists()


# ---- e -----------------------------------------------------------------------

KINDS = {  # who works beside the hang
    "1 ms jobs, 4 out": [(f"p{i}", {"us": 1000, "depth": 4, "samples": 1}) for i in range(2)],
    "1 ms jobs, one at a time": [(f"s{i}", {"us": 1000, "depth": 1, "samples": 1})
                                 for i in range(2)],
    "0.1 ms every 5 ms": [("light", {"us": 100, "period": 5000, "jitter": 20, "depth": 64,
                                     "samples": 1})],
}
OTHERS = [load for loads in KINDS.values() for load in loads]
HANG_AT_MS = 10000  # at scale 1, as all of these
HANG_LIMIT_MS = 30000
HANG_SECONDS = 130  # the limit is of charged time, of which a hang gets a part
KILL_AT_MS = 40000  # without us nobody ends it
KILL_SECONDS = 50


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


def _hang_rows(table, way, result, begin_ms):
    failures = result.vms["hang"]["failures"]
    if not failures:
        raise CaseError(f"{way}: the hang was not ended")
    end_ms = failures[0]["at_ms"]
    spans = {"before": (100, begin_ms), "during": (begin_ms + 100, end_ms - 100),
             "after": (end_ms + 300, result.seconds * 1e3)}
    for kind, loads in KINDS.items():
        names = [name for name, _ in loads]
        before = None
        for phase, span in spans.items():
            rates = [result.work_rate(name, *span) for name in names]
            if None in rates:
                continue
            before = before or sum(rates)
            tail = [us for name in names for us in result.samples(name, *span)]
            table.row(way, kind, phase, percent(sum(rates)), percent(min(rates)),
                      percent(sum(rates) / before if before else None),
                      milliseconds(quantile(tail, 0.5)), milliseconds(quantile(tail, 0.99)))
    table.note(f"{way}: ended {(end_ms - begin_ms) / 1e3:.2f} s after it began; longest that a "
               f"neighbour waited for an answer meanwhile: "
               f"{milliseconds(_worst(result, begin_ms, end_ms + 1000))} ms; errors of the others: "
               f"{sum(result.errors(name) for name, _ in OTHERS)}")
    return end_ms


def _worst(result, from_ms, to_ms):
    return max((us for name, _ in OTHERS for us in result.samples(name, from_ms, to_ms)),
               default=None)


def hang(rig, table):
    table.columns = ["way", "VMs", "phase", "work per second", "the least of one",
                     "kept of before", "p50 ms", "p99 ms"]
    begin_ms, limit_ms = (round(rig.scaled(ms / 1e3) * 1e3) for ms in (HANG_AT_MS, HANG_LIMIT_MS))
    hanging = ("hang", {"op": "hang", "start": begin_ms, "count": 1})
    found = {}

    def ours():
        vms = {"hang": {"timeout": limit_ms}, **{name: {} for name, _ in OTHERS}}
        with rig.session("quarantine_threshold=1000000", **vms) as session:
            return session.load(hanging, *OTHERS, seconds=HANG_SECONDS, ramp=2,
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
            return run(killed, *OTHERS, seconds=KILL_SECONDS, ramp=1)

        result = attempt(table, way, other)
        if result:
            attempt(table, way, lambda: _hang_rows(table, way, result, begin_ms))
    table.note(f"The limit is {limit_ms / 1e3:g} s of charged time. On the driver alone and under "
               "MPS nobody ends it: the harness kills the process "
               f"{(kill_ms - begin_ms) / 1e3:g} s after it began.")


# ---- f -----------------------------------------------------------------------

FAULTS_FROM_MS = 3000
FAULT_NEIGHBOURS = [(f"n{i}", {"us": 1000, "depth": 2}) for i in range(8)]
XID_ILLEGAL_ADDRESS = "31"


def _fault_row(table, way, result, begin_ms, points="–", xids="–", refused="–"):
    faulted = result.vms["bad"]["codes"].get(str(CODE_CUDA), 0)
    seconds = result.seconds - begin_ms / 1e3
    rates = [sum(result.work_rate(name, *span) or 0 for name, _ in FAULT_NEIGHBOURS) * 1e3
             for span in ((100, begin_ms), (begin_ms + 100, result.seconds * 1e3))]
    table.row(way, f"{seconds:.0f}", faulted, points, xids, refused,
              sum(result.errors(name) for name, _ in FAULT_NEIGHBOURS),
              *(f"{rate:.0f}" for rate in rates))


def _count_xids(session):
    """How many illegal addresses NVML has told of, once it has told of all; "–" without NVML."""
    gpu, = session.admin("health")["gpus"]
    return gpu["xids"].get(XID_ILLEGAL_ADDRESS, 0) if "xids" in gpu else "–"


def _faulting_vm(rig, table, way, begin_ms, seconds, *settings):
    vms = {"bad": {}, **{name: {} for name, _ in FAULT_NEIGHBOURS}}
    with rig.session(*settings, **vms) as session:
        result = session.load(("bad", {"op": "fault", "start": begin_ms}), *FAULT_NEIGHBOURS,
                              seconds=seconds, ramp=1)
        uuid = session.vms["bad"].uuid
        points = session.registry("SELECT min(points), max(points) FROM faults "
                                  "WHERE vm_uuid = ? AND kind = 'gpu_fault'", uuid)[0]
        count, quarantined, reason = session.registry(
            "SELECT error_count, quarantined, quarantine_reason FROM vms WHERE vm_uuid = ?",
            uuid)[0]
        _fault_row(table, way, result, begin_ms, f"{points[0]} to {points[1]}",
                   _count_xids(session),
                   result.vms["bad"]["codes"].get(str(CODE_QUARANTINED), 0))
    table.note(f"{way}: the registry counts {count} faults; quarantined: "
               f"{f'yes, {reason!r}' if quarantined else 'no'}")


def faults(rig, table):
    table.columns = ["way", "seconds", "faults", "points each", "Xid 31 seen", "then refused",
                     "errors of 8 neighbours", "their jobs/s before", "during"]
    begin_ms = round(rig.scaled(FAULTS_FROM_MS / 1e3) * 1e3)
    attempt(table, "threshold raised", lambda: _faulting_vm(
        rig, table, "threshold raised", begin_ms, 63, "quarantine_threshold=1000000"))
    attempt(table, "default threshold", lambda: _faulting_vm(
        rig, table, "default threshold", begin_ms, 20))
    for way, run in (("driver", rig.native), ("MPS", rig.mps)):
        def other(way=way, run=run):
            bad = ("bad", {"op": "fault", "start": begin_ms})
            _fault_row(table, way, run(bad, *FAULT_NEIGHBOURS, seconds=12, ramp=1), begin_ms)

        attempt(table, way, other)


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


def _most_mib(rig):
    """All there is, unless this is a trial."""
    return 1 << 20 if rig.cuda and rig.scale >= 0.5 else max(64, int(4096 * rig.scale))


def residue(rig, table):
    table.columns = ["who", "MiB of memory", "64-bit words", "of the pattern", "not zero"]
    rig.check_time(100)
    attempt(table, "workers", lambda: _residue_of_workers(rig, table))
    if rig.cuda:
        attempt(table, "the driver alone", lambda: _residue_of_driver(rig, table))


def _residue_of_workers(rig, table):
    """One VM fills the GPU, its worker is killed, and another VM's worker looks."""
    def ask(what, caller, fill):
        code, words = caller.ask(OP_RESIDUE, fill, _most_mib(rig))
        if code:
            raise CaseError(f"{what}: code {code}")
        mib, pattern_low, pattern_high, other_low, other_high = words
        table.row(what, mib, mib << 17, pattern_low | pattern_high << 32,
                  other_low | other_high << 32)

    vms = {name: {"timeout": 300000} for name in ("before", "filler", "after")}
    with rig.session("quarantine_threshold=1000000", **vms) as session:
        with session.caller("before") as caller:
            ask("a worker, before", caller, 0)
        _kill_worker(session, "before")
        with session.caller("filler") as caller:
            ask("another VM's fills it and is killed", caller, 1)
        table.note(f"the worker was gone {_kill_worker(session, 'filler') * 1e3:.0f} ms after "
                   "SIGKILL")
        with session.caller("after") as caller:
            ask("a third VM's, right after", caller, 0)


def _kill_worker(session, name):
    """Returns after how many seconds it was reaped."""
    pid = session.worker_pid(name)
    begin = time.monotonic()
    os.kill(pid, 9)
    while process_alive(pid):
        time.sleep(0.001)
    return time.monotonic() - begin


def _residue_of_driver(rig, table):
    program = str(rig.programs / "bench-gpu-residue")

    def row(what, counts):
        table.row(what, counts["mib"], counts["words"], counts["of_pattern"], counts["not_zero"])

    def start(mode):
        return subprocess.Popen([program, mode, str(_most_mib(rig))], stdout=subprocess.PIPE, text=True)

    filler = start("fill")
    try:
        row("the driver alone: a process fills it and is killed", _residue_line(filler))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(filler.pid, 9)
        filler.wait()
    looker = start("look")
    try:
        row("the driver alone: a fresh one, right after", _residue_line(looker))
    finally:
        looker.kill()
        looker.wait()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stress tests with a verdict: each measures for a minute or two and ends with PASS or FAIL.

They are no part of CI, because they need a calm machine: every figure is compared with a
bound. The device is the cpu backend by default, which is the last processor; whatever
else runs there takes its time from the VMs. Exit status: 0 all passed, 1 not.
"""
import argparse
import os
import pathlib
import sys
import tempfile
import threading

import gpu_rig
import gpu_report
import gpu_tables_fault
import gpu_tables_limit
import gpu_tables_share
import host

CODE_OK, CODE_TIMEOUT, CODE_CUDA, CODE_QUARANTINED = 0x00, 0x04, 0x05, 0x0B
QUANTUM_S = 0.004
OVERLOAD_ROUNDS = 5
VMS = {"w1": (1, 8), "w2": (2, 4), "w4": (4, 2), "w8": (8, 1)}  # weight, length in ms
FLOODER = "w1"


def turn_and_job_s(longest_s):
    """A turn lasts a quantum, or one job if that is longer."""
    return max(QUANTUM_S, longest_s) + longest_s


class Verdict:
    def __init__(self):
        self.failed = 0

    def check(self, holds, what):
        self.failed += not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {what}", flush=True)


def baseline_throughput(rig, verdict):
    """One VM alone keeps the device busy."""
    busy, empty = gpu_tables_share.throughput(rig, 10)
    verdict.check(busy >= 0.95, f"1 ms jobs run {100 * busy:.1f} % of the time (at least 95)")
    verdict.check(empty >= 1000, f"{empty:.0f} empty jobs per second (at least 1000)")


def multi_vm_fairness(rig, verdict):
    """Weights 1:2:4:8 hold against job lengths, and against one that floods."""
    weights = {name: weight for name, (weight, _) in VMS.items()}
    targets = gpu_tables_share.targets_of(weights)
    loads = [(name, {"us": ms * 1000, "depth": 64 if name == FLOODER else 4})
             for name, (_, ms) in VMS.items()]
    longest_s = max(ms for _, ms in VMS.values()) / 1e3
    bound_s = turn_and_job_s(longest_s)
    for seconds in (20, 60):
        with rig.session(**{name: {"weight": weight} for name, weight in weights.items()}) as one:
            result = one.load(*loads, seconds=seconds, ramp=2)
        charged = {name: result.charged_s(name) for name in VMS}
        total = sum(charged.values())
        work = sum(result.work_s(name) for name in VMS) / result.seconds
        verdict.check(work >= 0.95, f"{seconds} s: some job runs {100 * work:.1f} % of the time "
                                    "(at least 95)")
        for name, target in targets.items():
            off_s = charged[name] - target * total
            relative = abs(off_s) / (target * total)
            if seconds == 20:
                verdict.check(abs(off_s) <= bound_s,
                              f"20 s: {name} is {1e3 * off_s:+.1f} ms off its {100 * target:.1f} % "
                              f"(at most a turn and a job, {1e3 * bound_s:g})")
            else:
                verdict.check(relative <= 0.02, f"{seconds} s: {name} is {100 * relative:.2f} % "
                                                "off its target (at most 2)")
        verdict.check(not any(result.errors(name) for name in VMS), f"{seconds} s: no job failed")


def cheating_vm(rig, verdict):
    """Whoever tries to get more than its share gets no more than that, a turn and a job."""
    for what, keys in gpu_tables_share.CHEATS.items():
        fair, result = gpu_tables_share.cheat(rig, what)
        most = gpu_tables_share.MOST_SHARES.get(what, fair)
        names = ["cheat", *(name for name, _ in gpu_tables_share.HONEST)]
        charged = {name: result.charged_s(name) for name in names}
        beyond_s = charged["cheat"] - most * sum(charged.values())
        bound_s = turn_and_job_s(max(keys["us"], 1000) / 1e6)
        verdict.check(beyond_s <= bound_s, f"{what}: {1e3 * beyond_s:+.1f} ms beyond its "
                                           f"{100 * most:.1f} % (at most {1e3 * bound_s:g})")
        verdict.check(not any(result.errors(name) for name in names[1:]), "no honest job failed")


def back_pressure(rig, verdict):
    """Limits are exact, refusals are quick, retries come when they were asked for."""
    result = gpu_tables_limit.rate_limit(rig)
    rate = gpu_tables_limit.goodput(result, "limited")
    limit = gpu_tables_limit.RATE
    verdict.check(abs(rate / limit - 1) <= 0.02, f"{rate:.2f} jobs/s pass a limit of {limit}")
    p50_us = result.vms["limited"]["refusal_us"]["p50"]
    verdict.check(p50_us < 1000, f"a refusal takes {p50_us:.0f} us (median, under 1000)")
    verdict.check(result.errors("limited") == 0, "no other error")
    result = gpu_tables_limit.overload_rate(rig)
    ratio = gpu_tables_limit.goodput(result, "limited") / limit
    verdict.check(ratio >= 0.99, f"10 x overload, by rate: goodput {100 * ratio:.1f} % "
                                 "(at least 99)")
    early = result.vms["limited"]["early_retries"]
    for what, measure in (("overload by depth", gpu_tables_limit.overload_depth),
                          (f"10 x overload by {gpu_tables_limit.CLIENTS} VMs",
                           gpu_tables_limit.overload_vms)):
        pairs = measure(rig, OVERLOAD_ROUNDS, seconds=4)
        ratio = gpu_tables_limit.kept(pairs)
        verdict.check(ratio >= 0.99, f"{what}: goodput {100 * ratio:.1f} % (at least 99)")
        early += gpu_tables_limit.early_retries(pairs)
    verdict.check(early == 0, f"{early} retries came before their hint")


def watchdog_quarantine(rig, verdict):
    """Hangs end at their limit; three of them, or nine faults, quarantine; nobody else notices."""
    late_ms = 500 if rig.cuda else 300
    for code, late_s, next_code, next_s, _ in gpu_tables_fault.watchdog_times(rig):
        verdict.check(code == CODE_TIMEOUT and -0.001 <= late_s <= late_ms / 1e3,
                      f"HANG: code {code}, {1e3 * late_s:.1f} ms after its limit "
                      f"(at most {late_ms})")
        verdict.check(next_code == CODE_OK and next_s < 5,
                      f"next job: code {next_code}, {1e3 * next_s:.0f} ms")
    neighbours = [(f"n{i}", {"us": 1000, "depth": 2}) for i in range(4)]
    vms = {"hangs": {"timeout": 500}, "faults": {}, **{name: {} for name, _ in neighbours}}
    with rig.session(**vms) as session:
        offend = threading.Thread(target=_offend, args=(session, verdict))
        result = session.load(*neighbours, seconds=15, ramp=1, during=lambda _: offend.start())
        offend.join()
        errors = sum(result.errors(name) for name, _ in neighbours)
        done = sum(result.vms[name]["done"] for name, _ in neighbours)
        verdict.check(errors == 0 and done > 1000,
                      f"4 neighbours meanwhile: {done} jobs done, {errors} errors")
        _clear(session, verdict)


def _offend(session, verdict):
    """One VM hangs three times, another one faults nine times."""
    for name, opcode, fails, times in (("hangs", gpu_rig.OP_HANG, CODE_TIMEOUT, 3),
                                       ("faults", gpu_rig.OP_FAULT, CODE_CUDA, 9)):
        with session.caller(name) as caller:
            codes = [caller.call(opcode)[0] for _ in range(times)]
            then = [caller.call(gpu_rig.OP_NOP)[0] for _ in range(2)]
        verdict.check(codes == [fails] * times and then == [CODE_QUARANTINED] * 2,
                      f"{name}: codes {codes}, then {then}")


def _clear(session, verdict):
    """Quarantines outlive the mediator; cleared, the next job runs."""
    session.mediator.restart()
    for name in ("hangs", "faults"):
        session.mediator.wait_for_sockets([session.vms[name].uuid])
        with session.caller(name) as caller:
            before = caller.call(gpu_rig.OP_NOP)[0]
            session.mediator.admin("clear-quarantine", f"--vm-uuid={session.vms[name].uuid}")
            after = caller.call(gpu_rig.OP_NOP)[0]
        verdict.check(before == CODE_QUARANTINED and after == CODE_OK,
                      f"{name}: code {before} after a restart of the mediator, {after} once cleared")


STRESSES = {
    "baseline-throughput": baseline_throughput,
    "multi-vm-fairness": multi_vm_fairness,
    "cheating-vm": cheating_vm,
    "back-pressure": back_pressure,
    "watchdog-quarantine": watchdog_quarantine,
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"{', '.join(STRESSES)} (default: all)")
    parser.add_argument("--backend", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--programs", type=pathlib.Path, default=gpu_report.PROGRAMS,
                        help="directory of the programs (default: the build's)")
    parser.add_argument("--seconds-scale", type=float, default=1.0, metavar="X",
                        help="measure X times as long; the bounds are meant for 1")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    unknown = [name for name in arguments.names if name not in STRESSES]
    if unknown:
        sys.exit(f"stress: no test {', '.join(unknown)}: there are {', '.join(STRESSES)}")
    host.terminate_on_signals()
    programs = arguments.programs.resolve()
    gpu_report.use_libraries(programs)
    backend = gpu_report.choose_backend(arguments.backend, programs)
    print(f"{host.describe_machine()}; backend {backend}; load {os.getloadavg()[0]:.1f}")
    failed = 0
    with tempfile.TemporaryDirectory() as output:
        rig = gpu_rig.Rig(programs, backend, output, arguments.seconds_scale, mps=False)
        for name in arguments.names or STRESSES:
            print(f"{name}: {STRESSES[name].__doc__.strip()}", flush=True)
            verdict = Verdict()
            try:
                STRESSES[name](rig, verdict)
            except (gpu_rig.CaseError, host.HostError, OSError, ValueError) as error:
                verdict.check(False, str(error))
            print(f"{'FAIL' if verdict.failed else 'PASS'} {name}", flush=True)
            failed += verdict.failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stress: interrupted")

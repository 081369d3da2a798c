# SPDX-License-Identifier: MIT
"""Table about limits and back-pressure: j of gpu_report.py."""
from gpu_rig import attempt, percent

RATE = 50  # jobs per second
CLIENTS = 32
JOB_US = 5000
HEAVY = [(f"n{i}", {"us": 1000, "depth": 16}) for i in range(4)]
PERIOD_US = 1000000 // (10 * RATE)  # ten times what the limit lets through


def _codes(result, name):
    return {code: n for code, n in result.vms[name]["codes"].items() if code not in ("0", "10")}


def rate_limit(rig, seconds=10):
    """A VM that asks for ten times its rate beside four busy ones: the Result."""
    with rig.session(limited={"rate": RATE}, **{name: {} for name, _ in HEAVY}) as session:
        # The ramp uses up the burst.
        return session.load(("limited", {"us": 100, "period": PERIOD_US, "depth": 64}), *HEAVY,
                            seconds=seconds, ramp=2)


def overload_rate(rig, seconds=15):
    """Clients that together want ten times the rate, and retry by the rule: the Result."""
    with rig.session(limited={"rate": RATE}) as session:
        return session.load(("limited", {"us": 100, "period": PERIOD_US, "depth": CLIENTS,
                                         "retry": 1}), seconds=seconds, ramp=4)


def overload_depth(rig, seconds=10):
    """(capacity, overloaded): Results of a VM without a limit, and of clients at a full queue."""
    with rig.session(free={}, limited={"queue_depth": 4}) as session:
        capacity = session.load(("free", {"us": JOB_US, "depth": 4}), seconds=seconds / 2, ramp=1)
        session.idle()
        overloaded = session.load(("limited", {"us": JOB_US, "depth": CLIENTS, "retry": 1}),
                                  seconds=seconds, ramp=4)
    return capacity, overloaded


def overload_vms(rig, seconds=10):
    """(capacity, overloaded): Results of 32 VMs that have all of the GPU busy, and of the same
    with ten times as many jobs each, a queue of two and retries."""
    names = [f"c{i}" for i in range(CLIENTS)]

    def run(depth, **settings):
        with rig.session(**{name: dict(settings) for name in names}) as session:
            return session.load(*((name, {"us": JOB_US, "depth": depth, "retry": 1})
                                  for name in names), seconds=seconds, ramp=4)

    return run(2), run(20, queue_depth=2)


def goodput(result, name):
    return result.vms[name]["done"] / result.seconds


def goodput_of_all(result):
    return sum(vm["done"] for vm in result.vms.values()) / result.seconds


def back_pressure(rig, table):
    table.columns = ["case", "aim", "measured", "refusals", "refusal p50 / p99 / max us",
                     "retries before their hint", "other errors"]

    def row(case, aim, measured, result):
        vm, us = result.vms["limited"], result.vms["limited"]["refusal_us"]
        table.row(case, aim, measured, vm["refusals"],
                  f"{us['p50']:.0f} / {us['p99']:.0f} / {us['max']:.0f}", vm["early_retries"],
                  _codes(result, "limited") or 0)

    def limited():
        result = rate_limit(rig)
        row(f"limit {RATE}/s, asked for {10 * RATE}/s beside 4 busy VMs",
            f"{RATE}/s ± 2 %, refusal p50 < 1 ms", f"{goodput(result, 'limited'):.2f}/s", result)

    def by_rate():
        result = overload_rate(rig)
        row(f"{CLIENTS} jobs at a time want {10 * RATE}/s, limit {RATE}/s, with retries",
            "≥ 99 % of the limit", percent(goodput(result, "limited") / RATE), result)

    def by_depth():
        capacity, result = overload_depth(rig)
        full = goodput(capacity, "free")
        row(f"{CLIENTS} jobs at a time without pause, queue of 4, {JOB_US / 1000:g} ms jobs, with retries",
            f"≥ 99 % of {full:.0f}/s", percent(goodput(result, "limited") / full), result)

    def by_vms():
        capacity, result = overload_vms(rig)
        full, vms = goodput_of_all(capacity), result.vms.values()
        table.row(f"{CLIENTS} VMs, each with 20 {JOB_US / 1000:g} ms jobs for a queue of 2, "
                  "with retries", f"≥ 99 % of {full:.0f}/s",
                  percent(goodput_of_all(result) / full), sum(vm["refusals"] for vm in vms),
                  f"{max(vm['refusal_us']['p50'] for vm in vms):.0f} / "
                  f"{max(vm['refusal_us']['p99'] for vm in vms):.0f} / "
                  f"{max(vm['refusal_us']['max'] for vm in vms):.0f}",
                  sum(vm["early_retries"] for vm in vms), sum(map(result.errors, result.vms)))

    for measure in (limited, by_rate, by_depth, by_vms):
        attempt(table, measure.__name__, measure)

# SPDX-License-Identifier: MIT
"""Table about limits and back-pressure: j of gpu_report.py."""
import statistics

from gpu_rig import attempt, percent

RATE = 50  # jobs per second
CLIENTS = 32
JOB_US = 5000
HEAVY = [(f"n{i}", {"us": 1000, "depth": 16}) for i in range(4)]
PERIOD_US = 1000000 // (10 * RATE)  # ten times what the limit lets through


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


def overload_depth(rig, rounds=1, seconds=8):
    """[(capacity, overloaded)] of each round: Results of a VM without a limit, and of clients at
    a full queue."""
    pairs = []
    with rig.session(free={}, limited={"queue_depth": 4}) as session:
        for _ in range(rounds):
            capacity = session.load(("free", {"us": JOB_US, "depth": 4}),
                                    seconds=seconds, ramp=1)
            session.idle()
            overloaded = session.load(("limited", {"us": JOB_US, "depth": CLIENTS, "retry": 1}),
                                      seconds=seconds, ramp=4)
            session.idle()
            pairs.append((capacity, overloaded))
    return pairs


def overload_vms(rig, rounds=1, seconds=8):
    """[(capacity, overloaded)] of each round: Results of 32 VMs that have all of the GPU busy, and
    of the same with ten times as many jobs each, a queue of two and retries."""
    names = [f"c{i}" for i in range(CLIENTS)]

    def run(session, depth, queue_depth):
        session.registry("UPDATE vms SET max_queue_depth = ?", queue_depth)
        session.admin("reload")
        result = session.load(*((name, {"us": JOB_US, "depth": depth, "retry": 1})
                                for name in names), seconds=seconds, ramp=4)
        session.idle()
        return result

    with rig.session(**{name: {} for name in names}) as session:
        return [(run(session, 2, 0), run(session, 20, 2)) for _ in range(rounds)]


def goodput(result, name):
    return result.vms[name]["done"] / result.seconds


def goodput_of_all(result):
    return sum(vm["done"] for vm in result.vms.values()) / result.seconds


def kept(pairs):
    """What overload leaves of the capacity: the median over rounds in which each is measured
    right after the other, so that what else the machine does falls on both."""
    return statistics.median(goodput_of_all(overloaded) / goodput_of_all(capacity)
                             for capacity, overloaded in pairs)


def early_retries(pairs):
    return sum(vm["early_retries"] for _, result in pairs for vm in result.vms.values())


def back_pressure(rig, table):
    table.columns = ["case", "aim", "measured", "refusals", "refusal p50 / p99 / max us",
                     "retries before their hint", "other errors"]

    def row(case, aim, measured, results):
        vms = [vm for result in results for vm in result.vms.values()]
        us = {key: max(vm["refusal_us"][key] for vm in vms) for key in ("p50", "p99", "max")}
        errors = sum(result.errors(name) for result in results for name in result.vms)
        table.row(case, aim, measured, sum(vm["refusals"] for vm in vms),
                  f"{us['p50']:.0f} / {us['p99']:.0f} / {us['max']:.0f}",
                  sum(vm["early_retries"] for vm in vms), errors)

    def limited():
        result = rate_limit(rig)
        row(f"limit {RATE}/s, asked for {10 * RATE}/s beside 4 busy VMs",
            f"{RATE}/s ± 2 %, refusal p50 < 1 ms", f"{goodput(result, 'limited'):.2f}/s", [result])

    def by_rate():
        result = overload_rate(rig)
        row(f"{CLIENTS} jobs at a time want {10 * RATE}/s, limit {RATE}/s, with retries",
            "≥ 99 % of the limit", percent(goodput(result, "limited") / RATE), [result])

    def overload(case, pairs):
        full = statistics.median(goodput_of_all(capacity) for capacity, _ in pairs)
        row(case, f"≥ 99 % of {full:.0f}/s", percent(kept(pairs)),
            [overloaded for _, overloaded in pairs])

    def by_depth():
        overload(f"{CLIENTS} jobs at a time without pause, queue of 4, {JOB_US / 1000:g} ms jobs, "
                 "with retries", overload_depth(rig))

    def by_vms():
        overload(f"{CLIENTS} VMs, each with 20 {JOB_US / 1000:g} ms jobs for a queue of 2, "
                 "with retries", overload_vms(rig))

    for measure in (limited, by_rate, by_depth, by_vms):
        attempt(table, measure.__name__, measure)

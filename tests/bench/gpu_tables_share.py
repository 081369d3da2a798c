# SPDX-License-Identifier: MIT
"""Tables about who gets how much of the GPU: a, b, c and i of gpu_report.py."""
import time

from gpu_rig import attempt, percent

WEIGHTS = {"w1": 1, "w2": 2, "w4": 4, "w8": 8}
QUANTA_US = (1000, 2000, 4000, 8000)
SHORT_US = 100


def worst_error(shares, targets):
    """The largest relative distance of a share from its target."""
    return max(abs(shares[name] / targets[name] - 1) for name in targets)


def targets_of(weights):
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def _work(result, names):
    """(share of work by name, seconds of work per second) or (None, None)."""
    if not result:
        return None, None
    done = sum(result.work_s(name) for name in names)
    return result.work_shares(names), done / result.seconds


# ---- a -----------------------------------------------------------------------


def weights(rig, table):
    table.columns = ["jobs", "VM", "target", "ours: charged", "ours: work", "driver: work",
                     "MPS: work"]
    targets = targets_of(WEIGHTS)
    for lengths_ms, seconds, others_s in (((1, 5, 20, 50), 20, 12), ((50, 20, 5, 1), 150, 12)):
        what = "/".join(map(str, lengths_ms)) + " ms"
        loads = [(name, {"us": ms * 1000, "depth": 4}) for name, ms in zip(WEIGHTS, lengths_ms)]

        def ours():
            with rig.session(**{name: {"weight": w} for name, w in WEIGHTS.items()}) as session:
                return session.load(*loads, seconds=seconds, ramp=3)

        mine = attempt(table, what, ours)
        driver = attempt(table, f"{what}, driver", lambda: rig.native(*loads, seconds=others_s))
        mps = attempt(table, f"{what}, MPS", lambda: rig.mps(*loads, seconds=others_s))
        if mine:
            charged = mine.charged_shares(targets)
        work = [_work(result, targets) for result in (mine, driver, mps)]
        for name, ms in zip(WEIGHTS, lengths_ms):
            table.row(what, f"{name}, {ms} ms", percent(targets[name]),
                      percent(charged[name] if mine else None, 2),
                      *(percent(shares[name] if shares else None, 2) for shares, _ in work))
        table.row(what, "worst error", "≤ 2 %",
                  percent(worst_error(charged, targets) if mine else None, 2),
                  *(percent(worst_error(shares, targets) if shares else None, 1)
                    for shares, _ in work))
        table.row(what, "work per second", "",
                  percent(mine.busy_ratio() if mine else None) + " charged",
                  *(percent(rate) for _, rate in work))
    table.note("Work is the number of jobs done times their length: it leaves out what a "
               "hand-over costs, and a job that crosses an end of the window counts where it ends.")


# ---- b -----------------------------------------------------------------------


def lopsided(rig, table):
    table.columns = ["VM", "target", "ours: charged", "ours: work", "driver: work", "MPS: work"]
    vms = {"s1": 1, "s2": 1, "s3": 1, "big": 97}
    targets = targets_of(vms)
    loads = [(name, {"us": 500000, "depth": 2}) for name in vms]

    def ours():
        with rig.session(**{name: {"weight": w} for name, w in vms.items()}) as session:
            return session.load(*loads, seconds=60, ramp=4)

    mine = attempt(table, "ours", ours)
    driver = attempt(table, "driver", lambda: rig.native(*loads, seconds=16, ramp=2))
    mps = attempt(table, "MPS", lambda: rig.mps(*loads, seconds=16, ramp=2))
    charged = mine.charged_shares(targets) if mine else None
    shares = [charged, *(_work(result, targets)[0] for result in (mine, driver, mps))]
    for name in vms:
        table.row(name, percent(targets[name]),
                  *(percent(one[name] if one else None, 2) for one in shares))


# ---- c -----------------------------------------------------------------------


def busy(rig, table):
    table.columns = ["quantum", "pipelined (16 under way)", "one under way"]
    names = [f"v{i}" for i in range(4)]
    ways = (("pipelined", 16), ("synchronous", 1))

    def measure(run):
        """Jobs per second of all VMs for both ways, None where that failed."""
        rates = []
        for _, depth in ways:
            loads = [(name, {"us": SHORT_US, "depth": depth}) for name in names]
            result = attempt(table, "short jobs", lambda: run(*loads, seconds=5, ramp=1))
            rates.append(sum(vm["done"] for vm in result.vms.values()) / result.seconds
                         if result else None)
        return rates

    alone = attempt(table, "alone on the driver", lambda: rig.native(
        ("alone", {"us": SHORT_US, "depth": 16}), seconds=3))
    full = alone.vms["alone"]["done"] / alone.seconds if alone else 1e6 / SHORT_US
    table.note(f"100 % are {full:.0f} jobs/s, " + (
        "one process alone on the driver, pipelined" if alone else "by the jobs' nominal length"))

    def row(what, rates):
        table.row(what, *(percent(rate / full if rate else None) for rate in rates))

    for quantum_us in QUANTA_US:
        def ours(quantum_us=quantum_us):
            with rig.session(f"quantum_us={quantum_us}", **{name: {} for name in names}) as session:
                row(f"{quantum_us / 1000:g} ms" + (" (default)" if quantum_us == 4000 else ""),
                    measure(session.load))
                if quantum_us == 4000:
                    one = session.load(("v0", {"us": SHORT_US, "depth": 16}), seconds=3)
                    row("default, one VM alone", [one.vms["v0"]["done"] / one.seconds, None])

        attempt(table, f"quantum {quantum_us} us", ours)
    row("driver, 4 processes", measure(rig.native))
    row("MPS, 4 processes", measure(rig.mps))
    table.note("Aim: at least 93 % pipelined at the default quantum.")


# ---- i -----------------------------------------------------------------------

HONEST = [(f"h{i}", {"us": 1000, "depth": 4}) for i in range(4)]


def _toggle(session, result_of):
    """Changes the cheat's weight as fast as the registry takes it; notes when."""
    def act(_begun_ns):
        changes = result_of["changes"] = []
        end = time.monotonic() + result_of["seconds"] + 0.5
        weight = 1
        while time.monotonic() < end:
            weight = 3 - weight
            session.registry("UPDATE vms SET weight = ? WHERE vm_name = 'cheat'", weight)
            session.admin("reload")
            changes.append((time.monotonic(), weight))
            time.sleep(0.02)
    return act


def _mean_claim(changes):
    """The fair share of a VM whose weight changed at those times beside four of weight 1."""
    spans = [(b[0] - a[0], a[1]) for a, b in zip(changes, changes[1:])]
    return sum(span * weight / (weight + 4) for span, weight in spans) / sum(s for s, _ in spans)


TOGGLES = "changes its weight 1, 2, 1, …"
MOST_SHARES = {TOGGLES: 2 / 6}  # of the highest weight; else what is fair

CHEATS = {
    "none, a fifth honest VM": {"us": 1000, "depth": 4},
    "10 us jobs, 64 under way": {"us": 10, "depth": 64},
    "one under way, 1 ms": {"us": 1000, "depth": 1},
    "sleeps 1 ms after 20 ms jobs": {"us": 20000, "depth": 1, "think": 1000},
    "sleeps 210 ms after 100 ms jobs": {"us": 100000, "depth": 1, "think": 210000},
    "every 50th job is a FAULT": {"us": 1000, "depth": 4, "fault_every": 50},
    TOGGLES: {"us": 1000, "depth": 4},
}


def cheat(rig, what, seconds=8):
    """One of CHEATS beside the honest four: (the share that is the cheat's, Result)."""
    vms = {"cheat": {}, **{name: {} for name, _ in HONEST}}
    info = {"seconds": rig.scaled(seconds)}
    with rig.session("quarantine_threshold=1000000", **vms) as session:
        act = _toggle(session, info) if what == TOGGLES else None
        result = session.load(("cheat", CHEATS[what]), *HONEST, seconds=seconds, ramp=1, during=act)
    return _mean_claim(info["changes"]) if len(info.get("changes", ())) > 2 else 1 / 5, result


def cheats(rig, table):
    table.columns = ["cheat", "fair share", "ours: charged", "ours: work",
                     "honest four: worst error", "driver: work", "MPS: work"]
    vms = ["cheat", *(name for name, _ in HONEST)]
    for what, keys in CHEATS.items():
        loads = [("cheat", keys), *HONEST]
        fair, mine = attempt(table, what, lambda: cheat(rig, what)) or (None, None)
        driver = mps = None
        if what != TOGGLES and "FAULT" not in what:
            driver = attempt(table, f"{what}, driver", lambda: rig.native(*loads, seconds=4))
            mps = attempt(table, f"{what}, MPS", lambda: rig.mps(*loads, seconds=4))
        if not mine:
            continue
        charged = mine.charged_shares(vms)
        honest = {name: charged[name] for name, _ in HONEST}
        each = sum(honest.values()) / len(honest)
        work = [_work(result, vms)[0] for result in (mine, driver, mps)]
        table.row(what, percent(fair), percent(charged["cheat"], 2),
                  percent(work[0]["cheat"], 2),
                  percent(worst_error(honest, dict.fromkeys(honest, each)), 2),
                  *(percent(shares["cheat"] if shares else None, 1) for shares in work[1:]))
    table.note("The honest four have 1 ms jobs, four under way; their error is that of one of "
               "them from the mean of the four. Who sleeps asks for less and may get less.")
    table.note("A weight is read from the registry, which a guest cannot write: the last row is "
               "about an operator's script.")


# ---- What a stress test asks --------------------------------------------------


def throughput(rig, seconds):
    """One VM that always has work: (seconds of work per second, empty jobs per second)."""
    with rig.session(one={}) as session:
        work = session.load(("one", {"us": 1000, "depth": 16}), seconds=seconds, ramp=1)
        session.idle()
        empty = session.load(("one", {"op": "nop", "depth": 16}), seconds=seconds, ramp=0.5)
    if work.errors("one") or empty.errors("one"):
        raise ValueError("jobs failed")
    return work.work_s("one") / work.seconds, empty.vms["one"]["done"] / empty.seconds

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Takes the scheduler's rules away one by one and requires that a check notices.

Each mutation replaces one piece of text in a copy of the sources. Then the copy is
built, and the checks run in turn: random scenarios against the bounds, the scenarios'
expectations, the unit tests. A mutation that no check notices is an error, and so is
one whose text is no longer in the sources.

usage: run.py [--only WORD]
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPIED = ["src/base", "src/proto", "src/core", "src/settings", "src/sim", "include", "tests/unit",
          "tests/scenarios"]
LIMIT_S = 150

# (the rule that goes, file in src/core/schedule, text, what takes its place)
MUTATIONS = [
    ("weights divide charges", "sched_fair.h",
     "(SCHED_TAG_SCALE * vm->used_ns + vm->tag_remainder) / vm->phi",
     "(SCHED_TAG_SCALE * vm->used_ns + vm->tag_remainder) / 100"),
    ("remainders are kept", "sched_fair_turn.c",
     "vm->tag_remainder = (SCHED_TAG_SCALE * vm->used_ns + vm->tag_remainder) % vm->phi;",
     "vm->tag_remainder = 0;"),
    ("a woken VM starts at virtual time", "sched_fair_turn.c",
     "vm->start_tag = max_i64(sched->virtual_time, vm->finish_tag);",
     "vm->start_tag = vm->finish_tag;"),
    ("a woken VM keeps what it owes", "sched_fair_turn.c",
     "vm->start_tag = max_i64(sched->virtual_time, vm->finish_tag);",
     "vm->start_tag = sched->virtual_time;"),
    ("when idle, virtual time takes up all charges", "sched_fair_turn.c",
     "max_i64(sched->virtual_time, sched->finish_max);", "sched->virtual_time;"),
    ("virtual time stops at kappa", "sched_fair_turn.c",
     "min_i64(vm->start_tag, fair_kappa(sched))", "vm->start_tag"),
    ("virtual time goes on with grants", "sched_fair_turn.c",
     "max_i64(sched->virtual_time, min_i64(vm->start_tag, fair_kappa(sched)));",
     "sched->virtual_time;"),
    ("promises are part of kappa", "sched_fair_charge.c",
     "max_i64(vm->promise, fair_reached_tag(vm))", "fair_reached_tag(vm)"),
    ("the ready are part of kappa", "sched_fair_charge.c",
     "sched->ready.count ? sched->ready.least[0].promise : INT64_MAX", "INT64_MAX"),
    ("(a): tags may not run ahead of kappa", "sched_fair_turn.c",
     "gate->kappa = fair_kappa(sched);", "gate->kappa = INT64_MAX;"),
    ("the woken may lead kappa", "sched_fair_turn.c",
     "vm->lead_tag -= fair_tag(sched->config.wake_lead_ns, vm->phi);", "vm->lead_tag -= 0;"),
    ("(b): open turns must have lasted", "sched_fair_turn.c",
     "gate->shortest_ns = INT64_MAX;\n\tgate->overrun_tag", "gate->shortest_ns = 0;\n\tgate->overrun_tag"),
    ("(b): nobody enters at once", "sched_fair_turn.c",
     "vm->patience_ns = patience_ns;", "vm->patience_ns = 0;"),
    ("(b): age counts by half", "sched_fair_turn.c",
     "max_i64(vm->used_ns, age_ns / 2)", "vm->used_ns"),
    ("(c): an overrun turn is thinned", "sched_fair_turn.c",
     "if (vm->used_ns > FAIR_OVERRUN_NS)", "if (false)"),
    ("the not woken wait for overlap_after", "sched_fair_turn.c",
     "patience_ns = max_i64(patience_ns, sched->config.overlap_after_ns);", ";"),
    ("at most overlap_max turns are open", "sched_fair_turn.c",
     "if (sched->open_count >= (uint32_t)sched->config.overlap_max)\n\t\treturn NULL;",
     "if (sched->open_count >= FAIR_OPEN_MAX)\n\t\treturn NULL;"),
    ("a wait as a new turn needs a place", "sched_fair_turn.c",
     "if (sched->open_count >= (uint32_t)sched->config.overlap_max)\n\t\treturn;", ";"),
    ("a new weight keeps what is owed", "sched_fair_turn.c",
     "vm->finish_tag = rescale(v, vm->finish_tag, from, to);",
     "vm->finish_tag = max_i64(vm->finish_tag, v) == v ? vm->finish_tag"
     " : rescale(v, vm->finish_tag, from, to);"),
    ("looks again when a turn can have overrun", "sched_fair_turn.c",
     "overrun_ns(sched, least->start_tag, now_ns));", "SCHED_NEVER);"),
    ("looks again when patience is over", "sched_fair_turn.c",
     "look_at_ns = patience_over_ns(sched, least->patience_ns, now_ns);",
     "look_at_ns = SCHED_NEVER;"),
    ("looks again while only the tag keeps out", "sched_fair_turn.c",
     "int64_t look_at_ns = now_ns + FAIR_LOOK_AGAIN_NS;", "int64_t look_at_ns = SCHED_NEVER;"),
    ("ready VMs come by key", "sched_fair_ready.c",
     "return a->key < b->key;", "return a->key > b->key;"),
    ("priority breaks ties", "sched_fair_ready.c",
     "return a->priority > b->priority;", "return a->priority < b->priority;"),
    ("estimates are part of the key", "sched_fair_turn.c",
     "vm->key = vm->start_tag + fair_tag(expected_ns, vm->phi);", "vm->key = vm->start_tag;"),
    ("demand and waiting discount the estimate", "sched_fair_turn.c",
     "expected_ns -= expected_ns * vm->boost_ppm / 1000000;", ";"),
    ("a search skips no VM that passes", "sched_fair_ready.c",
     "least.patience_ns = min_i64(least.patience_ns, other->patience_ns);", ";"),
    ("minima follow removals", "sched_fair_ready.c",
     "if (last)\n\t\trefresh(ready, (last - 1) / 2);", ";"),
    ("a turn ends with its quantum", "sched_fair_turn.c",
     "bool over = vm->used_ns >= sched->config.quantum_ns;", "bool over = false;"),
    ("launching ahead ends with the quantum", "sched_fair_turn.c",
     "vm->used_ns + vm->in_flight * job_ns < sched->config.quantum_ns", "true"),
    ("one job until its length is known", "sched_fair_turn.c",
     "job_ns == 0 ? 1 :", "job_ns == 0 ? 4 :"),
    ("four in flight at most", "sched_fair.h",
     "FAIR_DEPTH_MAX = 4,", "FAIR_DEPTH_MAX = 5,"),
    ("the next job is launched ahead", "sched_fair_turn.c",
     "vm->in_flight >= depth", "vm->in_flight >= 1"),
    ("only a VM that comes back is waited for", "sched_fair_turn.c",
     "vm->hit >= FAIR_HIT_WAITS;", "true;"),
    ("a VM that comes back is waited for", "sched_fair_turn.c",
     "vm->hit >= FAIR_HIT_WAITS;", "false;"),
    ("a wait ends", "sched_fair_turn.c",
     "if (vm->waiting && now_ns >= vm->wait_until_ns)", "if (false)"),
    ("a wait as a new turn only for who would be next", "sched_fair_turn.c",
     "if (!first || vm->finish_tag + fair_tag(expected_ns, vm->phi) >= first->key)",
     "if (!first)"),
    ("beside others, a new turn keeps to kappa", "sched_fair_turn.c",
     "if (sched->open_count && vm->finish_tag > fair_kappa(sched))", "if (false)"),
    ("a new weight keeps the worth of tags", "sched_fair_turn.c",
     "vm->start_tag = rescale(v, vm->start_tag, from, to);", ";"),
    ("a new weight waits for the turn's end", "sched_fair_turn.c",
     "if (vm->open || from == to)", "if (from == to)"),
    ("a move takes the lag along", "sched_fair.c",
     "vm->finish_tag = sched->virtual_time + vm->moved_lag;",
     "vm->finish_tag = sched->virtual_time;"),
    ("a killed VM is charged until reaped", "sched_fair.c",
     "\tif (enabled)\n\t\tfair_make_ready(sched, vm, now_ns, true);\n\telse\n",
     "\tif (enabled)\n\t\tfair_make_ready(sched, vm, now_ns, true);\n"
     "\telse if (vm->in_flight)\n\t\tfair_run_leave(sched, vm, now_ns);\n\telse\n"),
    ("a VM that may not run gets no turn", "sched_fair_turn.c",
     "if (vm->queued == 0 || !vm->enabled ||", "if (vm->queued == 0 ||"),
    ("slices end", "run_list.c",
     "if (list->count < 2)\n\t\treturn until_ns;", "if (list)\n\t\treturn until_ns;"),
    ("slices follow each other while a context is alone", "run_list.c",
     "list->slice_start_ns = now_ns - alone_ns % slice_alone_ns(list);", "(void)alone_ns;"),
    ("a context that is alone has no hand-over", "run_list.c",
     "return max_i64(list->slice_ns - list->handover_ns, list->slice_ns / 2 + 1);",
     "return list->slice_ns;"),
    ("who was next and is answered tells where the GPU is", "run_list.c",
     "if (was_next)\n\t\tturn(list, now_ns);", ";"),
    ("who is answered out of turn tells nothing", "run_list.c",
     "if (was_next)\n\t\tturn(list, now_ns);", "list->slice_start_ns = now_ns;"),
    ("beside several, the woken wait for the round", "run_list.c",
     "} else if (list->count == 1) {", "} else if (true) {"),
    ("pending ones enter when the head leaves", "run_list.c",
     "if (node == head) {\n\t\tadmit_pending(list);", "if (node == head) {"),
    ("who leaves out of turn pays for the hand-over", "run_list.c",
     "unseen_ns = min_i64(list->handover_ns, now_ns - node->entered_ns);", "unseen_ns = 0;"),
    ("at most since it entered", "run_list.c",
     "min_i64(list->handover_ns, now_ns - node->entered_ns)", "list->handover_ns"),
    ("at most the head's slice so far", "run_list.c",
     "unseen_ns = min_i64(unseen_ns, now_ns - list->slice_start_ns);", ";"),
    ("a refund leaves the head's tag ahead of virtual time", "sched_fair_charge.c",
     "if (vm->promise >= sched->virtual_time)", "if (true)"),
    ("the oldest open turn pays while all wait", "sched_fair_charge.c",
     "else if (sched->open_count)", "else if (false)"),
]


def prepare(copy):
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name)


def build(copy):
    core = [p for p in (copy / "src/core").rglob("*.c") if not p.name.startswith("health")]
    flags = ["-std=gnu11", "-O1", "-g", "-w", "-D_GNU_SOURCE", "-DVGPU_VERSION=\"mutated\"", f"-I{copy}/src", f"-I{copy}/include"]
    sim = [p for room in ("settings", "sim") for p in (copy / "src" / room).glob("*.c")]
    fair = [p for p in core if p.name.startswith(("sched_fair", "run_list"))]
    scripts = [copy / "tests/unit/test_sched_fair.c"]
    lockstep = [copy / "tests/unit" / n for n in ("test_sched_lockstep.c", "sched_naive.c")]
    run_list = [copy / "tests/unit/test_sched_run_list.c", copy / "src/core/schedule/run_list.c"]
    for out, sources, libraries in [
        ("vgpu-sim", sim + core, ["-ljansson", "-lm"]),
        ("test_sched_fair", scripts + fair, ["-lcmocka"]),
        ("test_sched_lockstep", lockstep + fair, ["-lcmocka"]),
        ("test_sched_run_list", run_list, ["-lcmocka"]),
    ]:
        subprocess.run(["cc", *flags, *map(str, sources), *libraries, "-o", str(copy / out)], check=True)


def checks(copy):
    scenarios = sorted(map(str, (copy / "tests/scenarios").glob("*.ini")))
    return [
        ("bounds", [str(copy / "vgpu-sim"), "--random", "60", "--seed", "1"]),
        ("expectations", [str(copy / "vgpu-sim"), "--expect", *scenarios]),
        ("run list test", [str(copy / "test_sched_run_list")]),
        ("scripts", [str(copy / "test_sched_fair")]),
        ("naive scheduler", [str(copy / "test_sched_lockstep")]),
    ]


def first_that_fails(copy):
    for name, command in checks(copy):
        try:
            done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return name + " (never ends)"
        if done.returncode != 0:
            return name
    return None


def try_mutation(copy, mutation):
    rule, file, text, instead = mutation
    path = copy / "src/core/schedule" / file
    original = path.read_text()
    if original.count(text) != 1:
        return f"TEXT NOT FOUND ONCE in {file}"
    path.write_text(original.replace(text, instead))
    try:
        build(copy)
        return first_that_fails(copy) or "NOT NOTICED"
    finally:
        path.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutations whose rule contains this word")
    options = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="vgpu-mutation-") as directory:
        copy = pathlib.Path(directory)
        prepare(copy)
        build(copy)
        noticed = first_that_fails(copy)
        if noticed:
            print(f"without any mutation a check fails: {noticed}")
            return 1
        for mutation in MUTATIONS:
            if options.only not in mutation[0]:
                continue
            outcome = try_mutation(copy, mutation)
            bad += outcome.isupper() or outcome.startswith("TEXT")
            print(f"{mutation[0]:55} {outcome}", flush=True)
    print("every mutation was noticed" if bad == 0 else f"{bad} mutations were not noticed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

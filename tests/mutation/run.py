#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Takes the rules of core and guest away one by one and requires that a check notices.

Each mutation of rules.py replaces one piece of text in a copy of the sources. Then the
copy is built, and the checks run in turn: unit tests, scenarios that once failed, random
scenarios against everything that the simulator checks, what scenarios expect. A mutation
that no check notices is an error, and so is one whose text is not in the sources, one
that does not compile, and one with which a check does not end, unless it says so.
"""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
from rules import MUTATIONS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT_LIMIT_S = 60
CHECK_LIMIT_S = 120
UNIT_TESTS = ["sched_run_list", "sched_fair", "sched_lockstep", "limit", "core", "core_limits",
              "core_places", "core_timeouts", "core_without_gpu", "core_vms", "core_hangs",
              "core_random", "guest_handle"]

NOT_NOTICED = "NOT NOTICED"
NOT_ENDED = "DOES NOT END"


class Copy:
    """A copy of the sources with a build of its own."""

    def __init__(self, directory):
        self.root = directory
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                                capture_output=True, check=True).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        subprocess.run(["meson", "setup", self.root / "build", self.root], check=True,
                       stdout=subprocess.DEVNULL)

    def build(self):
        """False if it does not compile."""
        targets = ["bin/vgpu-sim", *(f"tests/unit/test_{name}" for name in UNIT_TESTS)]
        # What is no longer used is no mistake here.
        return subprocess.run(["ninja", "-C", self.root / "build", "-j1", *targets], check=False,
                              stdout=subprocess.DEVNULL).returncode == 0

    def checks(self):
        sim = self.root / "build/bin/vgpu-sim"
        scenarios = self.root / "tests/scenarios"
        yield from ((f"test_{name}", [self.root / f"build/tests/unit/test_{name}"])
                    for name in UNIT_TESTS)
        yield "found", [sim, "--check", *sorted((scenarios / "found").glob("*.ini"))]
        yield "random", [sim, "--random", "200", "--seed", "1"]
        yield "expectations", [sim, "--expect", "--policy", "fair", *sorted(scenarios.glob("*.ini"))]

    def first_that_fails(self):
        for name, command in self.checks():
            try:
                limit_s = UNIT_LIMIT_S if name.startswith("test_") else CHECK_LIMIT_S
                done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
            except subprocess.TimeoutExpired:
                return NOT_ENDED
            if done.returncode != 0:
                return name
        return None

    def try_mutation(self, mutation):
        """What noticed, or in capitals what is wrong with the mutation."""
        path = self.root / mutation.file
        original = path.read_text()
        path.write_text(original.replace(mutation.text, mutation.instead))
        try:
            if not self.build():
                return "DOES NOT COMPILE"
            noticed = self.first_that_fails() or NOT_NOTICED
            return "never ends" if noticed == NOT_ENDED and mutation.never_ends else noticed
        finally:
            path.write_text(original)


def wrong_texts():
    """Those whose text is not in the sources once."""
    for mutation in MUTATIONS:
        times = (ROOT / mutation.file).read_text().count(mutation.text)
        if times != 1:
            yield f"{mutation.rule}: its text is in {mutation.file} {times} times"


def try_all(copy, mutations, failed, lock):
    while True:
        with lock:
            if not mutations:
                return
            mutation = mutations.pop()
        outcome = copy.try_mutation(mutation)
        with lock:
            failed += [mutation.rule] if outcome.isupper() else []
            print(f"{mutation.rule:60} {outcome}", flush=True)


def run(mutations, jobs):
    failed, lock = [], threading.Lock()
    with tempfile.TemporaryDirectory(prefix="vgpu-mutation-") as directory:
        copies = [Copy(pathlib.Path(directory) / str(number)) for number in range(jobs)]
        for copy in copies:
            if not copy.build():
                sys.exit("run.py: without any mutation it does not build")
        noticed = copies[0].first_that_fails()
        if noticed:
            sys.exit(f"run.py: without any mutation a check fails: {noticed}")
        threads = [threading.Thread(target=try_all, args=(copy, mutations, failed, lock))
                   for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutations whose rule contains this")
    parser.add_argument("--sample", type=int, help="so many of them")
    parser.add_argument("--seed", default="", help="which ones: the same for the same text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="so many at a time")
    parser.add_argument("--texts", action="store_true",
                        help="only sees whether the texts are in the sources")
    options = parser.parse_args()
    wrong = list(wrong_texts())
    if wrong or options.texts:
        sys.exit("\n".join(wrong) or None)
    mutations = [mutation for mutation in MUTATIONS if options.only in mutation.rule]
    if options.sample:
        generator = random.Random(options.seed)
        mutations = generator.sample(mutations, min(options.sample, len(mutations)))
    count = len(mutations)
    failed = run(mutations, options.jobs)
    if failed:
        sys.exit("\n".join(["not as it should be:", *failed]))
    print(f"{count} mutations, each noticed")


if __name__ == "__main__":
    main()

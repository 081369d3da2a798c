# SPDX-License-Identifier: MIT
"""kill -9 of the mediator at every point around the write of a fault.

tests/standin/sudden_end.c, preloaded, ends the process before the n-th call that changes
the registry's files; n goes over all of them, and once beyond: then the test kills it when
it has the answer. Whatever the point: a fault is in the registry with all that it brings,
or not at all; and it is there if anybody has seen its answer.
"""
import collections
import itertools
import signal
import sqlite3

import pytest

import mediator as harness
import wire
from test_quarantine import history, stored

ROUNDS = 3  # over all points of each scenario, together more than 200 kills

Scenario = collections.namedtuple("Scenario", "threshold before full outcomes")

SCENARIOS = {
    # One fault, from nothing: {(quarantined, faults)} that may be found; the last is the whole.
    "a fault that quarantines": Scenario(1, 0, 0, [(0, 0), (1, 1)]),
    "the second of two": Scenario(2, 1, 0, [(0, 1), (1, 2)]),
    "a fault below the threshold": Scenario(9, 0, 0, [(0, 0), (0, 1)]),
    # The disk is full for one before it, which is told all the same and stored with this one.
    "one that could not be stored": Scenario(2, 0, 1, [(0, 0), (0, 1), (1, 2)]),
}


class Sweep:
    def __init__(self, mediator, scenario):
        self.mediator = mediator
        self.scenario = scenario
        self.plan = mediator.directory / "plan"
        self.seen = collections.Counter()
        self.kills = 0
        mediator.environment = {
            "LD_PRELOAD": str(harness.STANDIN / "libsudden-end.so"),
            "VGPU_SUDDEN_END_REGISTRY": str(mediator.database),
            "VGPU_SUDDEN_END_PLAN": str(self.plan),
        }
        self.start()
        self.uuid, self.bystander = mediator.add_vms(1, 2)

    def start(self):
        self.mediator.start(quarantine_threshold=self.scenario.threshold)

    def arm(self, kill_at, full=0):
        """From now on; another plan than the one before."""
        part = self.plan.with_suffix(".part")
        part.write_text(f"{kill_at} {full}\n")
        part.rename(self.plan)

    def disarm(self):
        self.plan.unlink(missing_ok=True)

    def reset(self):
        """As if nothing had happened, but for the faults before the one that counts."""
        with self.mediator.registry() as registry:
            registry.execute("UPDATE vms SET quarantined = 0, error_count = 0")
            registry.execute("DELETE FROM faults")
        self.mediator.reload()
        device = self.mediator.connect(self.uuid)
        device.works()
        for _ in range(self.scenario.before):
            assert device.call(wire.OP_FAULT).code == wire.CUDA
        if self.scenario.full:
            self.arm(0, full=self.scenario.full)
            assert device.call(wire.OP_FAULT).code == wire.CUDA
            assert stored(self.mediator, self.uuid) == self.scenario.outcomes[0]
        return device

    def fault(self, kill_at):
        """Whether the answer came; the mediator is dead afterwards."""
        device = self.reset()
        self.arm(kill_at)
        device.submit(wire.OP_FAULT)
        answered = bool(device.sock.recv(1))
        if answered:
            self.mediator.signal(signal.SIGKILL)
        assert self.mediator.wait() == -signal.SIGKILL
        self.kills += 1
        return answered

    def check(self, answered, kill_at):
        """The mediator itself finds what it has left, and agrees with the file about it."""
        self.disarm()
        self.start()
        found = stored(self.mediator, self.uuid)
        where = f"killed before call {kill_at}, answered: {answered}, found {found}"
        assert found in self.scenario.outcomes, where
        assert not answered or found == self.scenario.outcomes[-1], where
        kinds = collections.Counter(row[0] for row in history(self.mediator, self.uuid))
        assert kinds["worker_death"] == found[1], where
        assert kinds["quarantined"] == found[0], where
        status = self.mediator.vm_status(self.uuid)
        assert (status["quarantined"], status["fault_points"]) == (bool(found[0]), found[1]), where
        assert stored(self.mediator, self.bystander) == (0, 0)
        assert sqlite3.connect(self.mediator.database).execute(
            "PRAGMA integrity_check").fetchone() == ("ok",)
        self.seen[(found, answered)] += 1

    def strike(self, kill_at):
        answered = self.fault(kill_at)
        self.check(answered, kill_at)
        return answered


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_point_a_fault_is_never_lost_and_never_spurious(new_mediator, name):
    sweep = Sweep(new_mediator(), SCENARIOS[name])
    nothing, *parts, whole = sweep.scenario.outcomes
    for _ in range(ROUNDS):
        for kill_at in itertools.count(1):
            if sweep.strike(kill_at):
                break
    print(f"{name}: {sweep.kills} kills: {dict(sweep.seen)}")
    assert sweep.kills >= 200 / len(SCENARIOS)
    # Before it is stored, when a part is, when it is and nobody knows, and when somebody does.
    assert sweep.seen[(nothing, False)] and sweep.seen[(whole, True)] == ROUNDS, sweep.seen
    for part in parts:
        assert sweep.seen[(part, False)], sweep.seen
    assert sweep.seen[(whole, False)], sweep.seen

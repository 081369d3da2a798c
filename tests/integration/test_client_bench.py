# SPDX-License-Identifier: MIT
"""vgpu-client's bench: what it counts, and when it ends."""

import contextlib

import pytest

import wire
from client_peer import (
    FAILED, LIMIT_S, QUARANTINED, TIMED_OUT, TRY_LATER, UNAVAILABLE, answer, new_mediator,
    refuse_all, results_of, run, run_json,
)


@pytest.mark.parametrize("op", ["nop", "add", "sgemm", "spin"])
def test_bench(scripted, op):
    report = run_json(scripted(new_mediator), "bench", "--op", op, "--count", 20, "--n", 8)
    assert report["op"] == op
    assert (report["requests"], report["done"], report["failed"]) == (20, 20, 0)
    latency = report["latency_us"]
    order = [latency[k] for k in ("min", "p50", "p95", "p99", "p99_9", "max")]
    assert order == sorted(order)
    assert report["throughput_per_s"] > 0
    assert ("gflops" in report) is (op == "sgemm")
    assert "p99_9: " in run("--socket", scripted(new_mediator), "bench", "--count", 3).stdout


def test_bench_for_a_time(scripted):
    report = run_json(scripted(new_mediator), "bench", "--seconds", 1, "--outstanding", 4)
    assert report["done"] == report["requests"] > 4
    assert report["seconds"] >= 1


def test_bench_answers_out_of_order(scripted):
    """Eight are outstanding before the first is answered, and the last is first."""

    def script(peer):
        for _ in range(5):
            batch = [peer.receive() for _ in range(8)]
            assert len({id_ for id_, _ in batch}) == 8
            for id_, request in reversed(batch):
                answer(peer, id_, request)

    report = run_json(
        scripted(script), "bench", "--op", "add", "--outstanding", 8, "--count", 40
    )
    assert (report["done"], report["wrong"]) == (40, 0)


def test_bench_keeps_to_the_mediators_limit(scripted):
    most = []

    def script(peer):
        peer.say_hello(outstanding=2)
        peer.sock.setblocking(True)
        first = [peer.receive() for _ in range(16)]
        for id_, request in first:
            answer(peer, id_, request)
        waiting = []
        with contextlib.suppress(EOFError):
            while True:
                waiting.append(peer.receive())
                peer.sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    while True:
                        waiting.append(peer.receive())
                peer.sock.settimeout(LIMIT_S)
                most.append(len(waiting))
                for id_, request in waiting:
                    answer(peer, id_, request)
                waiting.clear()

    report = run_json(scripted(script), "bench", "--outstanding", 16, "--count", 32)
    assert report["done"] == 32
    assert most and max(most) <= 2


def test_bench_finds_wrong_answers(scripted):
    def script(peer):
        for i in range(10):
            id_, request = peer.receive()
            peer.respond(id_, [(results_of(request)[0] + (i == 4)) & 0xFFFFFFFF])

    report = run_json(scripted(script), "bench", "--op", "add", "--count", 10, status=FAILED)
    assert (report["done"], report["wrong"]) == (10, 1)


def test_bench_counts_refusals_and_errors(scripted):
    def script(peer):
        refused = False
        for _ in range(11):
            id_, request = peer.receive()
            if not refused:
                peer.busy(id_, retry_after_us=10)
                refused = True
            elif request.params[0] == 0x9E3779B1:
                peer.respond(id_, [700, 0], status=wire.CUDA)
            else:
                answer(peer, id_, request)

    report = run_json(
        scripted(script), "bench", "--op", "add", "--outstanding", 3, "--count", 10, status=FAILED
    )
    assert (report["requests"], report["done"], report["failed"]) == (10, 9, 1)
    assert (report["refused"], report["retries"]) == (1, 1)
    assert report["errors"] == {"CUDA error": 1}


def test_bench_without_retries(scripted):
    report = run_json(
        scripted(refuse_all(3)), "--retries", 0, "bench", "--count", 3, status=TRY_LATER
    )
    assert (report["refused"], report["failed"], report["done"]) == (3, 3, 0)


def test_bench_stops_when_quarantined(scripted):
    def script(peer):
        id_, _ = peer.receive()
        peer.send(wire.MSG_QUARANTINED, id_)
        with pytest.raises(EOFError):
            peer.receive()

    run("--socket", scripted(script), "bench", status=QUARANTINED)


def test_bench_timeouts(scripted):
    """Requests without an answer are given up; the rest goes on, whatever comes late."""

    def script(peer):
        late = [peer.receive() for _ in range(2)]
        # Two more can only come when both are given up.
        later = [peer.receive() for _ in range(2)]
        for id_, request in late + later:
            answer(peer, id_, request)
        for _ in range(2):
            answer(peer, *peer.receive())

    report = run_json(
        scripted(script),
        *("--timeout", 1000, "bench", "--outstanding", 2, "--count", 6),
        status=TIMED_OUT,
    )
    assert (report["done"], report["failed"]) == (4, 2)
    assert report["errors"] == {"no answer in time": 2}


def test_bench_connection_lost(scripted):
    def script(peer):
        for _ in range(8):
            peer.receive()

    report = run_json(
        scripted(script), "bench", "--outstanding", 8, "--count", 100, status=UNAVAILABLE
    )
    assert (report["requests"], report["done"], report["failed"]) == (8, 0, 8)
    assert report["errors"] == {"connection closed": 8}

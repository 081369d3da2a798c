# SPDX-License-Identifier: MIT
"""vgpu-client against mediators that refuse, fall silent, or say what makes no sense."""

import contextlib
import struct

import pytest

import wire
from client_peer import (
    FAILED, QUARANTINED, TIMED_OUT, TRY_LATER, UNAVAILABLE, answer, refuse_all, run, run_json,
)


# ---- Refusals ------------------------------------------------------------------


def test_busy_then_success(scripted):
    def script(peer):
        peer.say_hello()
        id_, _ = peer.receive()
        peer.busy(id_, retry_after_us=1000)
        answer(peer, *peer.receive())

    assert "= 3" in run("--socket", scripted(script), "add", 1, 2).stdout


def test_old_refusal_then_success(scripted):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [1, 1000], status=wire.RATE_LIMITED)
        answer(peer, *peer.receive())

    assert "= 3" in run("--socket", scripted(script), "add", 1, 2).stdout


def test_retries_run_out(scripted):
    done = run("--socket", scripted(refuse_all(2)), "--retries", 1, "ping", status=TRY_LATER)
    assert "rate limited (depth, retry after 1000 us, retries made: 1)" in done.stderr
    report = run_json(scripted(refuse_all(1)), "--retries", 0, "ping", status=TRY_LATER)
    assert report["retries"] == 0
    assert report["error"] == {
        "code": wire.RATE_LIMITED,
        "text": "rate limited",
        "reason": "depth",
        "retry_after_us": 1000,
    }


def test_a_hint_beyond_the_timeout_is_not_slept(scripted):
    def script(peer):
        id_, _ = peer.receive()
        peer.busy(id_, retry_after_us=4_000_000_000)
        with pytest.raises(EOFError):
            peer.receive()

    run("--socket", scripted(script), "ping", status=TRY_LATER)


@pytest.mark.parametrize("old", [True, False])
def test_quarantined(scripted, old):
    def script(peer):
        id_, _ = peer.receive()
        if old:
            peer.respond(id_, [0, 0], status=wire.QUARANTINED)
        else:
            peer.send(wire.MSG_QUARANTINED, id_)
        with pytest.raises(EOFError):
            peer.receive()

    done = run("--socket", scripted(script), "ping", status=QUARANTINED)
    assert "clear-quarantine" in done.stderr


@pytest.mark.parametrize(
    "code, status",
    [
        (wire.INVALID_REQUEST, FAILED),
        (wire.UNAVAILABLE, UNAVAILABLE),
        (wire.TIMEOUT, TIMED_OUT),
        (wire.CUDA, FAILED),
        (wire.INVALID_POOL, FAILED),
        (wire.QUEUE_FULL, TRY_LATER),
        (wire.UNSUPPORTED, FAILED),
        (wire.CONTEXT_LOST, FAILED),
        (wire.MEMORY_QUOTA, FAILED),
        (wire.CANCELLED, FAILED),
        (0x7F, FAILED),
    ],
)
def test_codes(scripted, code, status):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [719, 0], status=code)

    report = run_json(scripted(script), "add", 1, 2, status=status)
    assert report["error"]["code"] == code
    assert report["error"].get("detail") == (719 if code == wire.CUDA else None)


@pytest.mark.parametrize("detail, said", [(719, "(CUresult 719)"), (0, "the worker may have died")])
def test_why_a_job_failed_on_the_gpu(scripted, detail, said):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [detail, 0xFFFFFFFF], status=wire.CUDA)

    assert said in run("--socket", scripted(script), "fault", status=FAILED).stderr


# ---- Peers that misbehave ----------------------------------------------------------


def test_timeout(scripted):
    def script(peer):
        peer.receive()
        with pytest.raises(EOFError):
            peer.receive()

    done = run("--socket", scripted(script), "--timeout", 50, "ping", status=TIMED_OUT)
    assert "--timeout" in done.stderr


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 64,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack("<4IcBH", wire.SOCKET_MAGIC, wire.MSG_RESPONSE, 0, 0, b"A", 1, 1025),
    ],
)
def test_garbage(scripted, garbage):
    def script(peer):
        peer.receive()
        peer.sock.sendall(garbage)
        with contextlib.suppress(OSError):
            peer.sock.recv(1)

    done = run("--socket", scripted(script), "ping", status=UNAVAILABLE)
    assert "no valid answer" in done.stderr


@pytest.mark.parametrize("payload", [b"", b"short", b"\xff" * 32, b"\0" * 1024])
def test_garbage_in_a_response(scripted, payload):
    def script(peer):
        id_, _ = peer.receive()
        peer.send(wire.MSG_RESPONSE, id_, payload)

    run("--socket", scripted(script), "ping", status=UNAVAILABLE)


@pytest.mark.parametrize("cut", [0, 1, 19, 20, 40])
def test_closed_in_the_middle(scripted, cut):
    def script(peer):
        id_, _ = peer.receive()
        message = wire.pack_socket(wire.MSG_RESPONSE, wire.encode_response(), request_id=id_)
        peer.sock.sendall(message[:cut])

    done = run("--socket", scripted(script), "ping", status=UNAVAILABLE)
    assert "connection closed" in done.stderr


def test_ping_from_the_mediator(scripted):
    def script(peer):
        id_, request = peer.receive()
        peer.send(wire.MSG_PING, 4711)
        header, payload = wire.receive_socket(peer.sock)
        assert (header.type, header.request_id, payload) == (wire.MSG_PONG, 4711, b"")
        answer(peer, id_, request)

    run("--socket", scripted(script), "ping")


def test_answers_for_nobody_are_ignored(scripted):
    def script(peer):
        id_, request = peer.receive()
        peer.respond(id_ + 1, [5])
        peer.send(0x4242, id_, b"unknown type")
        answer(peer, id_, request)

    run("--socket", scripted(script), "add", 1, 2)

# SPDX-License-Identifier: MIT
"""What a device and the mediator say to each other, old devices first.

A device that says no HELLO is one that is in the field already: it must get what it
always got, and never a message type that it cannot know. The bytes that matter are
written out here by hand.
"""

import os
import signal
import struct
import time

import pytest

import mediator as harness
import wire

OLD_TYPES = {wire.MSG_RESPONSE, wire.MSG_PONG}
ONE_IN_1000_S = {"max_jobs_per_sec": 0.001}
SPIN_US = 100_000  # long enough for what is written together with it to arrive


def words(*values):
    return struct.pack(f"<{len(values)}I", *values)


def old_add(a, b, id_):
    """CUDA_KERNEL as a Phase 2 device sends it, byte by byte."""
    header = words(0x56475055, 1, 77, id_) + b"B" + b"\x02" + struct.pack("<H", 40)
    return header + words(0x00010000, 1, 0, 2, 0, 0, 0, 0) + words(a & 0xFFFFFFFF, b & 0xFFFFFFFF)


@pytest.mark.parametrize(
    "a, b, result",
    [
        (100, 200, 300),
        (-5, 3, 0xFFFFFFFE),
        (-100, -200, 0xFFFFFED4),
        (0x7FFFFFFF, 1, 0x80000000),
        (-0x80000000, -1, 0x7FFFFFFF),
        (0, 0, 0),
    ],
)
def test_old_peer_adds(mediator, a, b, result):
    device = mediator.connect(mediator.add_vm())
    device.sock.sendall(old_add(a, b, 0xFFFFFFFF))
    message = wire.receive_exactly(device.sock, 20 + 36)
    magic, type_, _, id_ = struct.unpack_from("<4I", message)
    assert (magic, type_, id_) == (0x56475055, 2, 0xFFFFFFFF)
    assert struct.unpack_from("<H", message, 18) == (36,)
    version, status, count, _, length, _, r0, r1, sum_ = struct.unpack_from("<9I", message, 20)
    assert (version, status, count, length, r0, r1) == (0x00010000, 0, 1, 0, 0, 0)
    assert sum_ == result


def test_old_peer_bytes_in_pieces(mediator):
    """A request that comes byte by byte, and two that come as one piece and a half."""
    device = mediator.connect(mediator.add_vm())
    for byte in old_add(100, 200, 1):
        device.sock.sendall(bytes([byte]))
    assert device.answer().words == [300]
    both = old_add(1, 2, 2) + old_add(3, 4, 3)
    device.sock.sendall(both[:90])
    device.sock.sendall(both[90:])
    answers = device.answers(2)
    assert (answers[2].words, answers[3].words) == ([3], [7])


def test_ping(mediator):
    """Either side may ping, an extended peer as well as an old one."""
    uuid = mediator.add_vm()
    for hello in (False, True):
        device = mediator.connect(uuid, hello)
        for payload in (b"", b"x", b"\xff" * 1024):
            device.send(wire.MSG_PING, payload, id_=4711)
            header, echo = device.receive()
            assert (header.type, header.request_id, echo) == (wire.MSG_PONG, 4711, payload)
        device.send(wire.MSG_PONG, b"nobody asked")
        device.works()


def test_other_operations(mediator):
    device = mediator.connect(mediator.add_vm())
    nop = device.call(wire.OP_NOP)
    assert (nop.code, nop.words) == (wire.OK, [])
    info = device.call(wire.OP_GET_DEVICE_INFO)
    assert info.code == wire.OK
    assert info.words[0] == 0 and len(info.words) == 5
    assert info.data.decode().startswith("CPU")
    assert device.call(wire.OP_SGEMM, [17, 3]).words == wire.sgemm_results(17, 3)


# ---- Refusals ---------------------------------------------------------------


def refusal(device, extended, code, words_):
    """The next message must be this refusal, as the peer understands it."""
    answer = device.answer()
    new_types = {wire.RATE_LIMITED: wire.MSG_BUSY, wire.QUARANTINED: wire.MSG_QUARANTINED}
    if extended:
        assert answer.type == new_types[code], answer
    else:
        assert answer.type == wire.MSG_RESPONSE, answer
        assert answer.code == code
    for got, (low, high) in zip(answer.words, words_):
        assert low <= got <= high, (answer, words_)
    return answer


extended_or_not = pytest.mark.parametrize("extended", [False, True], ids=["old", "extended"])


@extended_or_not
def test_rate_limit(mediator, extended):
    device = mediator.connect(mediator.add_vm(**ONE_IN_1000_S), extended)
    device.works()
    id_ = device.submit(wire.OP_CUDA_KERNEL, [1, 2])
    answer = refusal(
        device, extended, wire.RATE_LIMITED, [(1, 1), (900_000_000, 1_000_000_000)]
    )
    assert answer.id == id_ and len(answer.words) == 2


@extended_or_not
def test_rate_limit_lets_through_when_it_said(mediator, extended):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid, extended)
    device.works()
    mediator.set_vm(uuid, max_jobs_per_sec=2, burst=1)
    request = wire.encode_request(wire.OP_SPIN, [SPIN_US])
    device.sock.sendall(
        b"".join(wire.pack_socket(wire.MSG_REQUEST, request, request_id=id_) for id_ in (1, 2))
    )
    answer = refusal(device, extended, wire.RATE_LIMITED, [(1, 1), (1, 500_000)])
    assert answer.id == 2
    time.sleep(answer.words[1] / 1e6)
    answers = [device.answer(), device.call(wire.OP_NOP)]
    assert [a.code for a in answers] == 2 * [wire.OK]


@extended_or_not
def test_depth_limit(mediator, extended):
    uuid = mediator.add_vm(max_queue_depth=2)
    device = mediator.connect(uuid, extended)
    device.works()
    requests = [wire.encode_request(wire.OP_SPIN, [SPIN_US])] + 3 * [
        wire.encode_request(wire.OP_CUDA_KERNEL, [1, 2])
    ]
    device.sock.sendall(
        b"".join(
            wire.pack_socket(wire.MSG_REQUEST, request, request_id=id_)
            for id_, request in enumerate(requests, 10)
        )
    )
    for id_ in (12, 13):
        answer = refusal(device, extended, wire.RATE_LIMITED, [(2, 2), (1, 0xFFFFFFFF)])
        assert answer.id == id_
    answers = device.answers(2)
    assert [answers[id_].code for id_ in (10, 11)] == [wire.OK, wire.OK]
    assert answers[11].words == [3]
    device.works()
    assert mediator.vm_status(uuid)["refused"] == 2


@extended_or_not
def test_gpu_seconds_limit(mediator, extended):
    """A job longer than the budget is paid for by a pause after it."""
    device = mediator.connect(mediator.add_vm(gpu_seconds_per_sec=0.01), extended)
    assert device.call(wire.OP_SPIN, [SPIN_US]).code == wire.OK
    device.submit(wire.OP_NOP)
    refusal(device, extended, wire.RATE_LIMITED, [(1, 1), (1_000_000, 0xFFFFFFFF)])


@extended_or_not
def test_quarantined(mediator, extended):
    uuid = mediator.add_vm(quarantined=1)
    device = mediator.connect(uuid, extended)
    id_ = device.submit(wire.OP_CUDA_KERNEL, [1, 2])
    answer = refusal(device, extended, wire.QUARANTINED, [])
    assert answer.id == id_
    assert answer.payload == b"" or not extended
    assert mediator.workers() == []
    mediator.set_vm(uuid, quarantined=0)
    device.works()


def test_quarantine_of_a_vm_that_works(mediator):
    """What is queued is answered QUARANTINED; what runs goes on."""
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    ids = [device.submit(wire.OP_HANG)]
    ids += [device.submit(wire.OP_CUDA_KERNEL, [n, n]) for n in range(8)]
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 9, "nine jobs")
    sent = mediator.vm_status(uuid)["in_flight"]
    assert 1 <= sent <= 4
    mediator.set_vm(uuid, quarantined=1)
    answers = device.answers(9 - sent)
    assert {id_: answer.code for id_, answer in answers.items()} == {
        id_: wire.QUARANTINED for id_ in ids[sent:]
    }
    assert mediator.vm_status(uuid)["in_flight"] == sent
    os.kill(mediator.worker_pid(uuid), signal.SIGKILL)
    answers = device.answers(sent)
    assert [answers[id_].code for id_ in ids[:sent]] == [wire.CUDA] + (sent - 1) * [
        wire.CONTEXT_LOST
    ]


@extended_or_not
def test_disabled_pool(mediator, extended):
    uuid = mediator.add_vm(pool_id="B")
    other = mediator.add_vm(2, pool_id="A")
    device = mediator.connect(uuid, extended)
    device.works()
    with mediator.registry() as registry:
        registry.execute("UPDATE pools SET enabled = 0 WHERE pool_id = 'B'")
    assert mediator.reload()["changed"] != []
    answer = device.call(wire.OP_CUDA_KERNEL, [1, 2])
    assert (answer.type, answer.code) == (wire.MSG_RESPONSE, wire.INVALID_POOL)
    mediator.connect(other).works()
    with mediator.registry() as registry:
        registry.execute("UPDATE pools SET enabled = 1")
    mediator.reload()
    device.works()


def test_an_old_peer_never_sees_anything_new(mediator):
    """All kinds of trouble on one connection: every message is of a type that is known."""
    uuid = mediator.add_vm(max_queue_depth=1)
    device = mediator.connect(uuid)
    seen = []
    device.send(wire.MSG_PING, b"old", id_=1)
    seen.append(device.receive()[0].type)
    for opcode in (wire.OP_NOP, wire.OP_CUDA_KERNEL, 0x42, wire.OP_GET_DEVICE_INFO, wire.OP_FAULT):
        seen.append(device.call(opcode).type)
    spins = [device.submit(wire.OP_SPIN, [SPIN_US]) for _ in range(2)]
    answers = device.answers(2)
    assert {answers[id_].code for id_ in spins} == {wire.OK, wire.RATE_LIMITED}
    seen += [answer.type for answer in answers.values()]
    mediator.set_vm(uuid, max_jobs_per_sec=0.001, max_queue_depth=0)
    for _ in range(2):
        seen.append(device.call(wire.OP_NOP).type)
    mediator.set_vm(uuid, quarantined=1)
    seen.append(device.call(wire.OP_NOP).type)
    assert set(seen) == OLD_TYPES
    device.send(wire.MSG_PING, b"last", id_=2)
    assert device.receive()[0].type == wire.MSG_PONG


# ---- HELLO ------------------------------------------------------------------


def test_hello_is_answered(mediator):
    device = mediator.connect(mediator.add_vm())
    device.sock.sendall(wire.pack_hello(features=0xFFFFFFFF, max_channels=16))
    header, payload = device.receive()
    assert (header.type, len(payload)) == (wire.MSG_HELLO, 24)
    version, features, max_channels, max_outstanding, window_kib, reserved = struct.unpack(
        "<6I", payload)
    assert (version, max_channels, window_kib, reserved) == (1, 0, 0, 0)
    assert str(max_outstanding) == mediator.call("show-config")["max_queue_per_vm"]
    assert features & wire.FEATURE_BUSY
    assert features & ~(wire.FEATURE_BUSY | wire.FEATURE_WINDOW) == 0
    device.works()


def test_requests_may_follow_a_hello_without_waiting(mediator):
    device = mediator.connect(mediator.add_vm(**ONE_IN_1000_S))
    requests = b"".join(
        wire.pack_socket(wire.MSG_REQUEST, wire.encode_request(wire.OP_NOP), request_id=id_)
        for id_ in (1, 2)
    )
    device.sock.sendall(wire.pack_hello() + requests)
    types = [device.receive()[0].type for _ in range(3)]
    assert types[0] == wire.MSG_HELLO
    assert set(types[1:]) == {wire.MSG_BUSY, wire.MSG_RESPONSE}


def test_only_announced_features_are_used(mediator):
    """A peer that says HELLO and does not know BUSY is refused by RESPONSE."""
    uuid = mediator.add_vm(**ONE_IN_1000_S)
    device = mediator.connect(uuid)
    device.sock.sendall(wire.pack_hello(features=0))
    header, payload = device.receive()
    assert header.type == wire.MSG_HELLO
    assert struct.unpack_from("<2I", payload) == (1, 0)
    device.works()
    refused = device.call(wire.OP_NOP)
    assert (refused.type, refused.code) == (wire.MSG_RESPONSE, wire.RATE_LIMITED)
    mediator.set_vm(uuid, quarantined=1)
    refused = device.call(wire.OP_NOP)
    assert (refused.type, refused.code) == (wire.MSG_RESPONSE, wire.QUARANTINED)


def test_claims_of_a_message_are_not_believed(mediator):
    """Who connects to a VM's socket is that VM, whatever vm_id its messages name."""
    first, second = mediator.add_vms(1, 2)
    with harness.Device(mediator.socket_of(first), vm_id=2) as device:
        device.works()
    assert mediator.vm_status(first)["jobs_done"] == 1
    assert mediator.vm_status(second)["jobs_done"] == 0

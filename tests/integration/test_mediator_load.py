# SPDX-License-Identifier: MIT
"""Many VMs with many jobs each, and what must hold when something dies among them.

Every job is an addition with numbers of its own, so that an answer that is lost,
doubled or given to the wrong VM is seen.
"""

import contextlib
import os
import selectors
import signal
import socket
import sqlite3
import struct

import pytest

import mediator as harness
import wire
from paths import MEDIATOR, has_sanitizer

VMS = 64
JOBS = 1000
QUEUE_MAX = 200  # less than JOBS: the bound is reached
READ_BYTES = 1 << 16
HANG_AT = 500

HEADER = wire.SOCKET_HEADER
STATUS_AND_RESULT = struct.Struct("<4xI24xI")  # of a response with one result


class Client:
    """One VM's connection: writes its jobs as fast as they are taken, reads the answers."""

    def __init__(self, path, number, jobs, special=None):
        self.number = number
        self.jobs = jobs
        self.codes = {}  # by id
        self.sock = socket_connected(path)
        special = special or {}
        self.unsent = memoryview(
            b"".join(self.request(id_, special.get(id_)) for id_ in range(1, jobs + 1))
        )
        self.unread = bytearray()
        self.ended = False

    def request(self, id_, opcode):
        if opcode is None:
            request = wire.encode_request(wire.OP_CUDA_KERNEL, [self.number << 16, id_])
        else:
            request = wire.encode_request(opcode)
        return wire.pack_socket(wire.MSG_REQUEST, request, request_id=id_)

    def write(self):
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.unsent = self.unsent[self.sock.send(self.unsent[:READ_BYTES]) :]

    def read(self):
        try:
            part = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            part = b""
        self.ended = not part
        self.unread += part
        at = 0
        while len(self.unread) - at >= HEADER.size:
            magic, type_, _, id_, _, _, length = HEADER.unpack_from(self.unread, at)
            if len(self.unread) - at < HEADER.size + length:
                break
            assert (magic, type_) == (wire.SOCKET_MAGIC, wire.MSG_RESPONSE)
            self.take(id_, self.unread, at + HEADER.size, length)
            at += HEADER.size + length
        del self.unread[:at]

    def take(self, id_, buffer, at, length):
        assert 1 <= id_ <= self.jobs, f"VM {self.number}: an answer to {id_}, which it never sent"
        assert id_ not in self.codes, f"VM {self.number}: job {id_} is answered twice"
        (code,) = struct.unpack_from("<I", buffer, at + 4)
        if code == wire.OK and length == 36:
            (sum_,) = struct.unpack_from("<I", buffer, at + 32)
            assert sum_ == (self.number << 16) + id_, f"VM {self.number}: job {id_} gave {sum_:#x}"
        self.codes[id_] = code

    @property
    def done(self):
        return self.ended or len(self.codes) == self.jobs

    def failed(self):
        """{id: code} of the jobs that were not done."""
        return {id_: code for id_, code in self.codes.items() if code != wire.OK}


def socket_connected(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.setblocking(False)
    return sock


def drive(clients, until=None):
    """Writes and reads until every client is done, or until() says so."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            if not client.done:
                selector.register(client.sock, events, client)
        while selector.get_map() and not (until and until()):
            ready = selector.select(harness.LIMIT_S)
            assert ready, "no answer comes any more"
            for key, events in ready:
                client = key.data
                if events & selectors.EVENT_WRITE:
                    client.write()
                    if not client.unsent:
                        selector.modify(client.sock, selectors.EVENT_READ, client)
                if events & selectors.EVENT_READ:
                    client.read()
                    if client.done:
                        selector.unregister(client.sock)


@pytest.fixture
def crowd(new_mediator):
    """(mediator, start): start(jobs, special) connects a Client for every VM."""
    mediator = new_mediator().start(max_queue_per_vm=QUEUE_MAX)
    uuids = mediator.add_vms(*range(1, VMS + 1))
    with contextlib.ExitStack() as stack:

        def start(jobs=JOBS, special=None):
            """@special: {VM number: {id: opcode}}."""
            clients = [
                Client(mediator.socket_of(uuid), number, jobs, (special or {}).get(number))
                for number, uuid in enumerate(uuids, 1)
            ]
            for client in clients:
                stack.callback(client.sock.close)
            return clients

        yield mediator, start


def answered(clients):
    return sum(len(client.codes) for client in clients)


def assert_all_done(clients):
    for client in clients:
        assert len(client.codes) == client.jobs, f"VM {client.number}: {len(client.codes)} answers"
        assert client.failed() == {}


@pytest.mark.skipif(has_sanitizer(MEDIATOR), reason="a sanitizer's memory means nothing")
def test_idle_vms_take_little(new_mediator):
    """64 VMs that are connected, have a worker each and do nothing."""
    mediator = new_mediator().start(max_workers=VMS)
    for uuid in mediator.add_vms(*range(1, VMS + 1)):
        mediator.connect(uuid).works()
    assert mediator.status()["workers"] == VMS
    assert mediator.rss_kib() < 16 * 1024


def test_every_job_is_answered_once(crowd):
    """64 VMs with 1,000 pipelined jobs each: all right, in bounded queues and flat memory."""
    mediator, start = crowd
    warm = start(JOBS // 4)
    drive(warm)
    assert_all_done(warm)
    for client in warm:
        client.sock.close()
    before_kib = mediator.rss_kib()
    deepest = 0

    clients = start()
    for part in range(1, 5):
        drive(clients, until=lambda: answered(clients) >= part * VMS * JOBS // 4)
        status = mediator.status()
        depths = [vm["queue_depth"] for vm in status["vms"]]
        assert max(depths) <= QUEUE_MAX
        assert status["queue_depth"] <= VMS * QUEUE_MAX
        deepest = max(deepest, *depths)
    drive(clients)
    assert_all_done(clients)
    assert deepest == QUEUE_MAX
    mediator.assert_grown_less(before_kib, 3 * 1024)
    status = mediator.status()
    assert status["queue_depth"] == 0
    assert sum(vm["jobs_done"] for vm in status["vms"]) == VMS * (JOBS + JOBS // 4)
    assert sum(vm["jobs_failed"] for vm in status["vms"]) == 0


def test_a_worker_is_killed_in_the_middle(crowd):
    """Its VM's jobs in flight fail, all others come out right, and its next job works."""
    mediator, start = crowd
    victim = 17
    clients = start(special={victim: {HANG_AT: wire.OP_HANG}})
    client = clients[victim - 1]
    drive(clients, until=lambda: len(client.codes) == HANG_AT - 1)
    uuid = harness.uuid_of(victim)
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"], "the hanging job")
    sent = mediator.vm_status(uuid)["in_flight"]
    pid = mediator.worker_pid(uuid)
    os.kill(pid, signal.SIGKILL)
    drive(clients)
    assert_all_done([c for c in clients if c is not client])
    assert len(client.codes) == JOBS
    lost = {HANG_AT + n: wire.CONTEXT_LOST for n in range(1, sent)}
    assert client.failed() == {HANG_AT: wire.CUDA, **lost}
    assert mediator.worker_pid(uuid) != pid
    mediator.connect(uuid).works()
    assert mediator.vm_status(uuid)["faults"] == 1


def test_workers_are_killed_at_random(crowd):
    """Any worker at any moment: only what it had in flight fails, and nothing else."""
    mediator, start = crowd
    clients = start()
    victims = range(5, VMS, 9)
    for count, victim in enumerate(victims, 1):
        drive(clients, until=lambda: answered(clients) >= count * VMS * JOBS // 20)
        os.kill(mediator.worker_pid(harness.uuid_of(victim)), signal.SIGKILL)
    drive(clients)
    assert_all_done([client for client in clients if client.number not in victims])
    for victim in victims:
        client = clients[victim - 1]
        assert len(client.codes) == JOBS
        failed = sorted(client.failed().items())
        assert len(failed) <= 4
        assert [code for _, code in failed] == ([wire.CUDA] + 3 * [wire.CONTEXT_LOST])[: len(failed)]
        mediator.connect(harness.uuid_of(victim)).works()


def test_a_device_vanishes_in_the_middle(crowd):
    """The jobs that it had queued are dropped, and nobody else notices."""
    mediator, start = crowd
    clients = start()
    leavers = clients[::8]
    drive(clients, until=lambda: answered(clients) >= VMS * JOBS // 4)
    for client in leavers:
        client.sock.close()
    rest = [client for client in clients if client not in leavers]
    drive(rest)
    assert_all_done(rest)
    harness.wait_for(lambda: mediator.status()["queue_depth"] == 0, "empty queues")
    for client in leavers:
        mediator.connect(harness.uuid_of(client.number)).works()


def test_the_mediator_is_killed_in_the_middle(crowd):
    """All connections end, no worker survives; a new one on the same directory serves all."""
    mediator, start = crowd
    clients = start()
    drive(clients, until=lambda: answered(clients) >= VMS * JOBS // 4)
    pids = [worker["pid"] for worker in mediator.workers()]
    assert len(pids) == VMS
    mediator.kill()
    drive(clients)
    assert any(client.ended for client in clients)
    for client in clients:
        assert client.failed() == {}
    harness.wait_for(lambda: not any(map(harness.alive, pids)), "the end of all workers")

    with mediator.registry() as registry:
        registry.execute("DELETE FROM vms WHERE vm_id = 1")
    mediator.start(max_queue_per_vm=QUEUE_MAX)
    uuids = [harness.uuid_of(number) for number in range(1, VMS + 1)]
    assert [mediator.socket_of(uuid).exists() for uuid in uuids] == [False] + (VMS - 1) * [True]
    for uuid in uuids[1::16]:
        mediator.connect(uuid).works()
    with contextlib.closing(sqlite3.connect(mediator.database)) as registry:
        assert registry.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

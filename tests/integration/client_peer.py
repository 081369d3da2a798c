# SPDX-License-Identifier: MIT
"""vgpu-client against a mediator made of Python, which answers as each test tells it.

So what cannot be had from a real one is tried as well: old peers, garbage, answers out of
order, a connection that ends in the middle. The bytes come from wire.py, not from the C code.
"""

import contextlib
import itertools
import json
import socket
import struct
import subprocess
import threading

import pytest

import wire
from paths import CLIENT

LIMIT_S = 60
USAGE, UNAVAILABLE, FAILED, TRY_LATER, QUARANTINED, TIMED_OUT = 64, 69, 70, 75, 77, 124


class Peer:
    """One connection, seen from the mediator."""

    def __init__(self, sock):
        self.sock = sock
        header, self.hello_payload = wire.receive_socket(sock)
        self.hello = header

    def receive(self):
        """The next REQUEST: (id, decoded request)."""
        header, payload = wire.receive_socket(self.sock)
        assert header.type == wire.MSG_REQUEST
        return header.request_id, wire.decode_request(payload)

    def send(self, type_, id_=0, payload=b""):
        self.sock.sendall(wire.pack_socket(type_, payload, request_id=id_))

    def say_hello(self, outstanding=64):
        words = struct.pack("<6I", 1, wire.FEATURE_BUSY, 0, outstanding, 0, 0)
        self.send(wire.MSG_HELLO, payload=words)

    def respond(self, id_, results=(), status=wire.OK, data=b"", exec_time_us=0):
        payload = wire.encode_response(status, results, data, exec_time_us)
        self.send(wire.MSG_RESPONSE, id_, payload)

    def busy(self, id_, retry_after_us=0, reason=1):
        self.send(wire.MSG_BUSY, id_, struct.pack("<2I", reason, retry_after_us))


def results_of(request):
    """What a mediator with a CPU backend answers."""
    if request.opcode == wire.OP_CUDA_KERNEL:
        return [(request.params[0] + request.params[1]) & 0xFFFFFFFF]
    if request.opcode == wire.OP_SGEMM:
        return wire.sgemm_results(*request.params)
    if request.opcode == wire.OP_GET_DEVICE_INFO:
        return [1, 9 << 16, 132, 4096, 512]
    return []


def answer(peer, id_, request):
    data = b"Fake \x1b[31mGPU" if request.opcode == wire.OP_GET_DEVICE_INFO else b""
    peer.respond(id_, results_of(request), data=data, exec_time_us=7)


def answer_all(peer):
    while True:
        try:
            answer(peer, *peer.receive())
        except (EOFError, OSError):
            return


def new_mediator(peer):
    peer.say_hello()
    answer_all(peer)


def refuse_all(count):
    """A script that refuses so many requests, and expects no further one."""

    def script(peer):
        for _ in range(count):
            id_, _ = peer.receive()
            peer.busy(id_, retry_after_us=1000, reason=2)
        with pytest.raises(EOFError):
            peer.receive()

    return script


@contextlib.contextmanager
def mediators(directory):
    """start(script) serves one connection with script(Peer) and returns the socket's path.

    What the script raised fails the test."""
    with contextlib.ExitStack() as stack:
        names = (directory / f"{i}.sock" for i in itertools.count())

        def start(script):
            failures = []
            path = next(names)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(LIMIT_S)

            def serve():
                try:
                    sock, _ = listener.accept()
                    with sock:
                        sock.settimeout(LIMIT_S)
                        script(Peer(sock))
                except BaseException as failure:  # pylint: disable=broad-except
                    failures.append(failure)

            def finish():
                thread.join(LIMIT_S)
                assert not thread.is_alive(), "the mediator's script did not end"
                for failure in failures:
                    raise failure

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(finish)
            return path

        yield start


def run(*arguments, status=0):
    done = subprocess.run(
        [CLIENT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def run_json(path, *arguments, status=0):
    report = json.loads(run("--json", "--socket", path, *arguments, status=status).stdout)
    assert report["ok"] is (status == 0)
    return report

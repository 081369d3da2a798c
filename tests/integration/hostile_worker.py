# SPDX-License-Identifier: MIT
"""A worker that somebody has taken over.

Usage: hostile_worker.py WHAT --fd N ...    (the rest is what the mediator gives a worker)

Behaves well until it has said READY; then does WHAT, which is one of the functions below.
"""

import socket
import sys
import time

import wire

LARGE = 2**64 - 1


def ready(sock):
    sock.send(wire.pack_worker(wire.WORKER_READY, wire.pack_device()))


def jobs(sock):
    while packet := sock.recv(wire.WORKER_PACKET_BYTES):
        yield wire.unpack_worker(packet)


def done(job, gpu_time_ns=0, type_=wire.WORKER_DONE):
    return wire.pack_worker(
        type_, wire.encode_response(wire.OK, [300]), job=job, gpu_time_ns=gpu_time_ns
    )


def invents(sock):
    """Answers jobs that it was never given, without end."""
    ready(sock)
    number = 1 << 40
    while True:
        number += 1
        sock.send(done(number))


def repeats(sock):
    """Answers its first job again and again."""
    ready(sock)
    first = next(jobs(sock))
    while True:
        sock.send(done(first.job))


def complains(sock):
    """Says that it cannot start, without end."""
    while True:
        sock.send(wire.pack_worker(wire.WORKER_START_FAILED, b"no"))


def boasts(sock):
    """Says that it holds more GPU memory than any of its jobs can ask for."""
    ready(sock)
    sock.send(wire.pack_worker(wire.WORKER_HOLDS, detail=1 << 20))
    for packet in jobs(sock):
        sock.send(done(packet.job))


def exaggerates(sock):
    """Every job took for ever."""
    ready(sock)
    for packet in jobs(sock):
        sock.send(done(packet.job, LARGE))


def flatters(sock):
    """Every job takes what its parameter says, and took no time at all."""
    ready(sock)
    for packet in jobs(sock):
        time.sleep(wire.decode_request(packet.payload).params[0] / 1e6)
        sock.send(done(packet.job, 0))


HOSTILE = (invents, repeats, complains, boasts, exaggerates, flatters)


def main():
    what, arguments = sys.argv[1], sys.argv[2:]
    fd = int(arguments[arguments.index("--fd") + 1])
    {f.__name__: f for f in HOSTILE}[what](socket.socket(fileno=fd))


try:
    main()
except (BrokenPipeError, ConnectionResetError):
    pass

# SPDX-License-Identifier: MIT
"""A mediator made of raw bytes, for tests that want to see exactly what a device sends.

It does nothing by itself: a test accepts a connection, reads messages and answers as
it likes, wrongly too. The layout is written out here and not taken from the C headers,
so that the two check each other.
"""
import os
import socket
import struct
from collections import namedtuple

REQUEST, RESPONSE, PING, PONG, BUSY, QUARANTINED, HELLO = range(1, 8)
MAGIC = 0x56475055
HEADER = struct.Struct("<IIIIcBH")
TIMEOUT_S = 20

Message = namedtuple("Message", "type vm_id request_id pool priority payload")


def frame(type, request_id=0, payload=b"", magic=MAGIC, length=None):
    """The bytes of one message; magic and length may lie."""
    return HEADER.pack(magic, type, 0, request_id, b"A", 1,
                       len(payload) if length is None else length) + payload


def response(status=0, results=(), data=b""):
    """The payload of a RESPONSE."""
    body = struct.pack(f"<{len(results)}I", *results) + data
    return struct.pack("<8I", 0x10000, status, len(results), 32 + 4 * len(results), len(data),
                       5, 0, 0) + body


class Connection:
    """One device's connection."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(TIMEOUT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def read(self, count):
        """Exactly @count bytes; fewer only if the device closed the connection."""
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                break
            data += part
        return data

    def message(self):
        """The next message, or None when the device closed the connection."""
        header = self.read(HEADER.size)
        if not header:
            return None
        magic, kind, vm_id, request_id, pool, priority, length = HEADER.unpack(header)
        assert magic == MAGIC
        payload = self.read(length)
        assert len(payload) == length
        return Message(kind, vm_id, request_id, pool.decode(), priority, payload)

    def send(self, data):
        self.sock.sendall(data)

    def hello(self):
        """Reads the device's HELLO and answers it; returns the device's."""
        hello = self.message()
        assert hello.type == HELLO
        self.send(frame(HELLO, payload=struct.pack("<6I", 1, 1, 0, 64, 0, 0)))
        return hello

    def answer_add(self):
        """Reads one CUDA_KERNEL request and answers it; returns the request."""
        request = self.message()
        assert request.type == REQUEST
        version, opcode, _, params = struct.unpack_from("<4I", request.payload)
        assert (version, opcode, params) == (0x10000, 1, 2)
        a, b = struct.unpack_from("<2I", request.payload, 32)
        self.send(frame(RESPONSE, request.request_id,
                        response(results=[(a + b) & 0xFFFFFFFF])))
        return request


class FakeMediator:
    """A listening socket at @path."""

    def __init__(self, path):
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(16)
        self.sock.settimeout(TIMEOUT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def accept(self):
        return Connection(self.sock.accept()[0])

    def close(self):
        """Goes away as a mediator that ends does: the socket's name goes too."""
        self.sock.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

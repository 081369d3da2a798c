# SPDX-License-Identifier: MIT
"""The bytes of the project in Python, for tests only.

A second implementation of include/vgpu/protocol.h and src/proto/worker_msg.h,
written from the documents and not from the C code, so that a test which speaks
through it checks the C code against something else than itself. Everything is
little-endian.
"""

import functools
import struct
from collections import namedtuple

MESSAGE_BYTES = 1024
VERSION = 0x00010000

# Opcodes
OP_NOP = 0x0000
OP_CUDA_KERNEL = 0x0001
OP_MEMORY_ALLOC = 0x0002
OP_MEMORY_FREE = 0x0003
OP_MEMORY_COPY = 0x0004
OP_GET_DEVICE_INFO = 0x0005
OP_SYNCHRONIZE = 0x0006
OP_SPIN = 0x1000
OP_FAULT = 0x1001
OP_HANG = 0x1002
OP_RESIDUE = 0x1004
OP_SGEMM = 0x1003

# Codes: ERROR_CODE, status of a response, code of a worker's packet
OK = 0x00
INVALID_REQUEST = 0x01
TOO_LARGE = 0x02
UNAVAILABLE = 0x03
TIMEOUT = 0x04
CUDA = 0x05
INVALID_POOL = 0x06
QUEUE_FULL = 0x07
UNSUPPORTED = 0x08
INVALID_LENGTH = 0x09
RATE_LIMITED = 0x0A
QUARANTINED = 0x0B
CONTEXT_LOST = 0x0C
MEMORY_QUOTA = 0x0D
CANCELLED = 0x0E

# ---- Request and response ---------------------------------------------------

_HEADER = struct.Struct("<8I")

Request = namedtuple("Request", "opcode flags params data")
Response = namedtuple("Response", "status results data exec_time_us")


def _words(values):
    return struct.pack(f"<{len(values)}I", *(v & 0xFFFFFFFF for v in values))


def _body(message, count, offset, length):
    words = list(struct.unpack_from(f"<{count}I", message, _HEADER.size))
    data = message[offset : offset + length] if length else b""
    if len(data) != length:
        raise ValueError(f"data at {offset}+{length} lies outside {len(message)} bytes")
    return words, data


def encode_request(opcode, params=(), data=b"", flags=0):
    """A whole request message. Negative parameters become two's complement."""
    offset = _HEADER.size + 4 * len(params) if data else 0
    header = _HEADER.pack(VERSION, opcode, flags, len(params), offset, len(data), 0, 0)
    return header + _words(params) + data


def decode_request(message):
    version, opcode, flags, count, offset, length, r0, r1 = _HEADER.unpack_from(message)
    if version != VERSION or r0 or r1:
        raise ValueError(f"not a request: version {version:#x}, reserved {r0}, {r1}")
    params, data = _body(message, count, offset, length)
    return Request(opcode, flags, params, data)


def encode_response(status=OK, results=(), data=b"", exec_time_us=0):
    offset = _HEADER.size + 4 * len(results) if data else 0
    header = _HEADER.pack(VERSION, status, len(results), offset, len(data), exec_time_us, 0, 0)
    return header + _words(results) + data


def decode_response(message):
    version, status, count, offset, length, exec_time_us, r0, r1 = _HEADER.unpack_from(message)
    if version != VERSION or r0 or r1:
        raise ValueError(f"not a response: version {version:#x}, reserved {r0}, {r1}")
    results, data = _body(message, count, offset, length)
    return Response(status, results, data, exec_time_us)


# ---- Socket between device and mediator -------------------------------------

SOCKET_MAGIC = 0x56475055
SOCKET_HEADER = struct.Struct("<4IcBH")

MSG_REQUEST = 0x01
MSG_RESPONSE = 0x02
MSG_PING = 0x03
MSG_PONG = 0x04
MSG_BUSY = 0x05
MSG_QUARANTINED = 0x06
MSG_HELLO = 0x07
MSG_OPEN = 0x08
MSG_CLOSE = 0x09
MSG_SUBMIT = 0x0A
MSG_COMPLETE = 0x0B

FEATURE_BUSY = 1 << 0
FEATURE_WINDOW = 1 << 1

Header = namedtuple("Header", "type vm_id request_id pool_id priority payload_len")


def pack_socket(type_, payload=b"", vm_id=0, request_id=0, pool_id="A", priority=1):
    """A whole message: header and payload."""
    header = SOCKET_HEADER.pack(
        SOCKET_MAGIC, type_, vm_id, request_id, pool_id.encode("latin-1"), priority, len(payload)
    )
    return header + payload


def unpack_socket_header(header):
    magic, type_, vm_id, request_id, pool_id, priority, length = SOCKET_HEADER.unpack(header)
    if magic != SOCKET_MAGIC:
        raise ValueError(f"magic is {magic:#x}, not {SOCKET_MAGIC:#x}")
    return Header(type_, vm_id, request_id, pool_id.decode("latin-1"), priority, length)


def receive_exactly(sock, length):
    """Raises EOFError when the peer closes first."""
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(length - len(parts))
        if not part:
            raise EOFError(f"peer closed after {len(parts)} of {length} bytes")
        parts += part
    return bytes(parts)


def receive_socket(sock):
    """Reads one message of a SOCK_STREAM socket: (Header, payload)."""
    header = unpack_socket_header(receive_exactly(sock, SOCKET_HEADER.size))
    return header, receive_exactly(sock, header.payload_len)


def pack_hello(features=FEATURE_BUSY, version=1, max_channels=0, device_version=1):
    """The HELLO that a device sends, header included."""
    return pack_socket(
        MSG_HELLO, struct.pack("<4I", version, features, max_channels, device_version)
    )


# ---- Packets between mediator and worker ------------------------------------

WORKER_HEADER = struct.Struct("<IIQIIIIQ")
WORKER_PACKET_BYTES = WORKER_HEADER.size + MESSAGE_BYTES
WORKER_DEVICE = struct.Struct("<5I96s")

WORKER_JOB = 0x01
WORKER_READY = 0x81
WORKER_START_FAILED = 0x82
WORKER_DONE = 0x83
WORKER_LOST = 0x84
WORKER_HOLDS = 0x85

NO_COMMAND = 0xFFFFFFFF

WorkerPacket = namedtuple(
    "WorkerPacket", "type opcode job code detail command gpu_time_ns payload"
)
WorkerDevice = namedtuple(
    "WorkerDevice", "backend capability multiprocessors total_mib used_mib name"
)


def pack_worker(
    type_, payload=b"", opcode=0, job=0, code=0, detail=0, command=NO_COMMAND, gpu_time_ns=0
):
    header = WORKER_HEADER.pack(
        type_, opcode, job, code, detail, command, len(payload), gpu_time_ns
    )
    return header + payload


def pack_job(job, opcode, params=(), data=b""):
    """The JOB packet of a well-formed request."""
    return pack_worker(WORKER_JOB, encode_request(opcode, params, data), opcode, job)


def unpack_worker(packet):
    type_, opcode, job, code, detail, command, length, time_ns = WORKER_HEADER.unpack_from(packet)
    payload = packet[WORKER_HEADER.size :]
    if len(payload) != length:
        raise ValueError(f"payload is {len(payload)} bytes, header says {length}")
    return WorkerPacket(type_, opcode, job, code, detail, command, time_ns, payload)


def pack_device(backend=0, capability=0, multiprocessors=1, total_mib=0, used_mib=0, name="test"):
    """The payload of READY."""
    return WORKER_DEVICE.pack(
        backend, capability, multiprocessors, total_mib, used_mib, name.encode()
    )


def unpack_device(payload):
    *words, name = WORKER_DEVICE.unpack(payload)
    return WorkerDevice(*words, name.split(b"\0", 1)[0].decode())


# ---- The matrix product of SGEMM (include/vgpu/sgemm.h) ----------------------

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF


def _mix(seed, stream, counter):
    h = (counter * 0x9E3779B1 + seed) & _M32
    h ^= (stream * 0x85EBCA77) & _M32
    h ^= h >> 16
    h = (h * 0x85EBCA6B) & _M32
    h ^= h >> 13
    h = (h * 0xC2B2AE35) & _M32
    return h ^ (h >> 16)


@functools.lru_cache
def sgemm_results(n, seed):
    """The six result words that SGEMM(n, seed) must give, without multiplying matrices."""

    def a(i, k):
        return _mix(seed, 0x0A, i * n + k) % 9 - 4

    def b(k, j):
        return _mix(seed, 0x0B, k * n + j) % 9 - 4

    u = [_mix(seed, 0x17, i) for i in range(n)]
    v = [_mix(seed, 0x29, j) for j in range(n)]
    checksum = 0
    for k in range(n):
        left = sum(u[i] * a(i, k) for i in range(n))
        right = sum(v[j] * b(k, j) for j in range(n))
        checksum += left * right
    checksum &= _M64
    samples = []
    for s in range(4):
        index = (0, n * n - 1)[s] if s < 2 else _mix(seed, 0x3D, s) % (n * n)
        i, j = divmod(index, n)
        value = float(sum(a(i, k) * b(k, j) for k in range(n)))
        samples.append(struct.unpack("<I", struct.pack("<f", value))[0])
    return [checksum & _M32, checksum >> 32] + samples

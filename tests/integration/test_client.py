# SPDX-License-Identifier: MIT
"""vgpu-client against a mediator made of Python: every command, every exit status.

The mediator answers as each test tells it, so that what cannot be had from a real
one is tried as well: old peers, garbage, answers out of order, a connection that ends
in the middle. The bytes come from wire.py, not from the C code.
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
from paths import BUILD, CLIENT

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


@pytest.fixture
def mediator(tmp_path):
    """start(script) serves one connection with script(Peer) and returns the socket's path.

    What the script raised fails the test."""
    with contextlib.ExitStack() as stack:
        names = (tmp_path / f"{i}.sock" for i in itertools.count())

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


# ---- Each command ------------------------------------------------------------


def test_hello_comes_first(mediator):
    seen = []

    def script(peer):
        seen.append((peer.hello.type, struct.unpack("<4I", peer.hello_payload)))
        new_mediator(peer)

    run("--socket", mediator(script), "ping")
    assert seen[0][0] == wire.MSG_HELLO
    assert seen[0][1][:2] == (1, wire.FEATURE_BUSY)


def test_info(mediator):
    report = run_json(mediator(new_mediator), "info")
    assert report["transport"] == "socket"
    assert report["connected"] is True
    assert report["extended_mediator"] is True
    assert report["outstanding_max"] == 64
    assert report["gpu"] == {
        "name": "Fake ?[31mGPU",
        "backend": "cuda",
        "capability": "9.0",
        "multiprocessors": 132,
        "memory_mib": 4096,
        "used_mib": 512,
    }
    text = run("--socket", mediator(new_mediator), "info").stdout
    assert "backend: cuda" in text
    assert "\x1b" not in text


def test_info_of_an_old_mediator(mediator):
    """No HELLO back, and GET_DEVICE_INFO with fewer results."""

    def old(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [0, 0])

    report = run_json(mediator(old), "info")
    assert report["extended_mediator"] is False
    assert report["gpu"] == {"name": "", "backend": "cpu", "capability": "0.0"}


def test_ping(mediator):
    done = run("--socket", mediator(new_mediator), "ping", "--count", 3)
    *answers, summary = done.stdout.splitlines()
    assert [line.split(":")[0] for line in answers] == ["answer 1", "answer 2", "answer 3"]
    assert summary.startswith("3 answers: min ")
    assert len(run("--socket", mediator(new_mediator), "ping").stdout.splitlines()) == 1
    report = run_json(mediator(new_mediator), "ping", "--count", 3)
    assert report["answers"] == 3
    assert 0 < report["min_us"] <= report["mean_us"] <= report["max_us"]


@pytest.mark.parametrize(
    "a, b, total",
    [
        (100, 200, 300),
        (-5, 3, -2),
        (2147483647, 1, -2147483648),
        (-2147483648, -1, 2147483647),
    ],
)
@pytest.mark.parametrize("script", [answer_all, new_mediator])
def test_add(mediator, script, a, b, total):
    assert run("--socket", mediator(script), "add", a, b).stdout == f"{a} + {b} = {total}\n"
    report = run_json(mediator(script), "add", a, b)
    assert (report["a"], report["b"], report["sum"], report["gpu_us"]) == (a, b, total, 7)


def test_options_after_the_arguments(mediator):
    done = run("add", "-1", "-2", "--socket", mediator(answer_all), "--json")
    assert json.loads(done.stdout)["sum"] == -3


def test_wrong_sum(mediator):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [301])

    done = run("--socket", mediator(script), "add", 100, 200, status=FAILED)
    assert "wrong sum" in done.stderr


def test_sgemm(mediator):
    done = run("--socket", mediator(new_mediator), "sgemm", "--n", 33, "--seed", 5, "--count", 2)
    lines = done.stdout.splitlines()
    low, high = wire.sgemm_results(33, 5)[:2]
    assert lines[0].startswith(f"n 33, seed 5, checksum 0x{high << 32 | low:016x}, ")
    assert lines[1].startswith("n 33, seed 6, ")
    assert all(line.endswith(", verified") and "GFLOP/s" in line for line in lines)
    report = run_json(mediator(new_mediator), "sgemm", "--n", 8)
    assert report["verified"] is True
    assert report["gflops"] >= 0


@pytest.mark.parametrize("word, why", [(0, "checksum"), (1, "checksum"), (2, "sample"), (5, "sample")])
def test_sgemm_catches_a_wrong_product(mediator, word, why):
    def script(peer):
        id_, request = peer.receive()
        results = results_of(request)
        results[word] ^= 0x00800000
        peer.respond(id_, results)

    assert f"wrong {why}" in run(
        "--socket", mediator(script), "sgemm", "--n", 16, status=FAILED
    ).stderr
    done = run("--socket", mediator(script), "sgemm", "--n", 16, "--no-verify")
    assert "not verified" in done.stdout


def test_spin_fault_hang(mediator):
    seen = []

    def script(peer):
        id_, request = peer.receive()
        seen.append((request.opcode, request.params))
        peer.respond(id_)

    for command in (["spin", 1500], ["fault"], ["hang"]):
        run("--socket", mediator(script), *command)
    assert seen == [(wire.OP_SPIN, [1500]), (wire.OP_FAULT, []), (wire.OP_HANG, [])]


# ---- Refusals ------------------------------------------------------------------


def test_busy_then_success(mediator):
    def script(peer):
        peer.say_hello()
        id_, _ = peer.receive()
        peer.busy(id_, retry_after_us=1000)
        answer(peer, *peer.receive())

    assert "= 3" in run("--socket", mediator(script), "add", 1, 2).stdout


def test_old_refusal_then_success(mediator):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [1, 1000], status=wire.RATE_LIMITED)
        answer(peer, *peer.receive())

    assert "= 3" in run("--socket", mediator(script), "add", 1, 2).stdout


def refuse_all(count):
    def script(peer):
        for _ in range(count):
            id_, _ = peer.receive()
            peer.busy(id_, retry_after_us=1000, reason=2)
        with pytest.raises(EOFError):
            peer.receive()

    return script


def test_retries_run_out(mediator):
    done = run("--socket", mediator(refuse_all(2)), "--retries", 1, "ping", status=TRY_LATER)
    assert "rate limited (depth, retry after 1000 us, retries made: 1)" in done.stderr
    report = run_json(mediator(refuse_all(1)), "--retries", 0, "ping", status=TRY_LATER)
    assert report["retries"] == 0
    assert report["error"] == {
        "code": wire.RATE_LIMITED,
        "text": "rate limited",
        "reason": "depth",
        "retry_after_us": 1000,
    }


def test_a_hint_beyond_the_timeout_is_not_slept(mediator):
    def script(peer):
        id_, _ = peer.receive()
        peer.busy(id_, retry_after_us=4_000_000_000)
        with pytest.raises(EOFError):
            peer.receive()

    run("--socket", mediator(script), "ping", status=TRY_LATER)


@pytest.mark.parametrize("old", [True, False])
def test_quarantined(mediator, old):
    def script(peer):
        id_, _ = peer.receive()
        if old:
            peer.respond(id_, [0, 0], status=wire.QUARANTINED)
        else:
            peer.send(wire.MSG_QUARANTINED, id_)
        with pytest.raises(EOFError):
            peer.receive()

    done = run("--socket", mediator(script), "ping", status=QUARANTINED)
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
def test_codes(mediator, code, status):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [719, 0], status=code)

    report = run_json(mediator(script), "add", 1, 2, status=status)
    assert report["error"]["code"] == code
    assert report["error"].get("detail") == (719 if code == wire.CUDA else None)


@pytest.mark.parametrize("detail, said", [(719, "(CUresult 719)"), (0, "the worker may have died")])
def test_why_a_job_failed_on_the_gpu(mediator, detail, said):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [detail, 0xFFFFFFFF], status=wire.CUDA)

    assert said in run("--socket", mediator(script), "fault", status=FAILED).stderr


# ---- Peers that misbehave ----------------------------------------------------------


def test_timeout(mediator):
    def script(peer):
        peer.receive()
        with pytest.raises(EOFError):
            peer.receive()

    done = run("--socket", mediator(script), "--timeout", 50, "ping", status=TIMED_OUT)
    assert "--timeout" in done.stderr


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 64,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack("<4IcBH", wire.SOCKET_MAGIC, wire.MSG_RESPONSE, 0, 0, b"A", 1, 1025),
    ],
)
def test_garbage(mediator, garbage):
    def script(peer):
        peer.receive()
        peer.sock.sendall(garbage)
        with contextlib.suppress(OSError):
            peer.sock.recv(1)

    done = run("--socket", mediator(script), "ping", status=UNAVAILABLE)
    assert "no valid answer" in done.stderr


@pytest.mark.parametrize("payload", [b"", b"short", b"\xff" * 32, b"\0" * 1024])
def test_garbage_in_a_response(mediator, payload):
    def script(peer):
        id_, _ = peer.receive()
        peer.send(wire.MSG_RESPONSE, id_, payload)

    run("--socket", mediator(script), "ping", status=UNAVAILABLE)


@pytest.mark.parametrize("cut", [0, 1, 19, 20, 40])
def test_closed_in_the_middle(mediator, cut):
    def script(peer):
        id_, _ = peer.receive()
        message = wire.pack_socket(wire.MSG_RESPONSE, wire.encode_response(), request_id=id_)
        peer.sock.sendall(message[:cut])

    done = run("--socket", mediator(script), "ping", status=UNAVAILABLE)
    assert "connection closed" in done.stderr


def test_ping_from_the_mediator(mediator):
    def script(peer):
        id_, request = peer.receive()
        peer.send(wire.MSG_PING, 4711)
        header, payload = wire.receive_socket(peer.sock)
        assert (header.type, header.request_id, payload) == (wire.MSG_PONG, 4711, b"")
        answer(peer, id_, request)

    run("--socket", mediator(script), "ping")


def test_answers_for_nobody_are_ignored(mediator):
    def script(peer):
        id_, request = peer.receive()
        peer.respond(id_ + 1, [5])
        peer.send(0x4242, id_, b"unknown type")
        answer(peer, id_, request)

    run("--socket", mediator(script), "add", 1, 2)


# ---- bench ---------------------------------------------------------------------


@pytest.mark.parametrize("op", ["nop", "add", "sgemm", "spin"])
def test_bench(mediator, op):
    report = run_json(mediator(new_mediator), "bench", "--op", op, "--count", 20, "--n", 8)
    assert report["op"] == op
    assert (report["requests"], report["done"], report["failed"]) == (20, 20, 0)
    latency = report["latency_us"]
    order = [latency[k] for k in ("min", "p50", "p95", "p99", "p99_9", "max")]
    assert order == sorted(order)
    assert report["throughput_per_s"] > 0
    assert ("gflops" in report) is (op == "sgemm")
    assert "p99_9: " in run("--socket", mediator(new_mediator), "bench", "--count", 3).stdout


def test_bench_for_a_time(mediator):
    report = run_json(mediator(new_mediator), "bench", "--seconds", 1, "--outstanding", 4)
    assert report["done"] == report["requests"] > 4
    assert report["seconds"] >= 1


def test_bench_answers_out_of_order(mediator):
    """Eight are outstanding before the first is answered, and the last is first."""

    def script(peer):
        for _ in range(5):
            batch = [peer.receive() for _ in range(8)]
            assert len({id_ for id_, _ in batch}) == 8
            for id_, request in reversed(batch):
                answer(peer, id_, request)

    report = run_json(
        mediator(script), "bench", "--op", "add", "--outstanding", 8, "--count", 40
    )
    assert (report["done"], report["wrong"]) == (40, 0)


def test_bench_keeps_to_the_mediators_limit(mediator):
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

    report = run_json(mediator(script), "bench", "--outstanding", 16, "--count", 32)
    assert report["done"] == 32
    assert most and max(most) <= 2


def test_bench_finds_wrong_answers(mediator):
    def script(peer):
        for i in range(10):
            id_, request = peer.receive()
            peer.respond(id_, [(results_of(request)[0] + (i == 4)) & 0xFFFFFFFF])

    report = run_json(mediator(script), "bench", "--op", "add", "--count", 10, status=FAILED)
    assert (report["done"], report["wrong"]) == (10, 1)


def test_bench_counts_refusals_and_errors(mediator):
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
        mediator(script), "bench", "--op", "add", "--outstanding", 3, "--count", 10, status=FAILED
    )
    assert (report["requests"], report["done"], report["failed"]) == (10, 9, 1)
    assert (report["refused"], report["retries"]) == (1, 1)
    assert report["errors"] == {"CUDA error": 1}


def test_bench_without_retries(mediator):
    report = run_json(
        mediator(refuse_all(3)), "--retries", 0, "bench", "--count", 3, status=TRY_LATER
    )
    assert (report["refused"], report["failed"], report["done"]) == (3, 3, 0)


def test_bench_stops_when_quarantined(mediator):
    def script(peer):
        id_, _ = peer.receive()
        peer.send(wire.MSG_QUARANTINED, id_)
        with pytest.raises(EOFError):
            peer.receive()

    run("--socket", mediator(script), "bench", status=QUARANTINED)


def test_bench_timeouts(mediator):
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
        mediator(script),
        *("--timeout", 1000, "bench", "--outstanding", 2, "--count", 6),
        status=TIMED_OUT,
    )
    assert (report["done"], report["failed"]) == (4, 2)
    assert report["errors"] == {"no answer in time": 2}


def test_bench_connection_lost(mediator):
    def script(peer):
        for _ in range(8):
            peer.receive()

    report = run_json(
        mediator(script), "bench", "--outstanding", 8, "--count", 100, status=UNAVAILABLE
    )
    assert (report["requests"], report["done"], report["failed"]) == (8, 0, 8)
    assert report["errors"] == {"connection closed": 8}


# ---- Command line -----------------------------------------------------------------


def test_help_and_version():
    text = run("--help").stdout
    for command in ("info", "ping", "add", "sgemm", "bench", "spin", "fault", "hang"):
        assert f"\n  {command} " in text
        assert "COMMAND" not in run(command, "--help").stdout
        assert command in run(command, "-h").stdout.splitlines()[0]
    assert run("--version").stdout.startswith("vgpu-client ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no command given"),
        (["frobnicate"], "no command 'frobnicate'"),
        (["--frobnicate", "ping"], "--frobnicate"),
        (["ping", "--n", "3"], "--n"),
        (["ping", "extra"], "'extra' is one argument too many"),
        (["add", "1"], "add needs A B"),
        (["add", "1", "2", "3"], "'3' is one argument too many"),
        (["add", "12abc", "1"], "wrong A '12abc'"),
        (["add", "1", ""], "wrong B ''"),
        (["add", "2147483648", "1"], "from -2147483648 to 2147483647"),
        (["add", " 1", "1"], "wrong A ' 1'"),
        (["spin", "600000001"], "from 0 to 600000000"),
        (["bench", "--op", "spin", "--spin-us", "600000001"], "from 0 to 600000000"),
        (["ping", "--count", "0"], "wrong --count '0'"),
        (["ping", "--count", "12abc"], "wrong --count '12abc'"),
        (["ping", "--count", ""], "wrong --count ''"),
        (["ping", "--count", "99999999999999999999"], "wrong --count"),
        (["--retries", "6", "ping"], "from 0 to 5"),
        (["--timeout", "0", "ping"], "from 1 to"),
        (["--socket", "", "ping"], "--socket is empty"),
        (["--socket", "/x", "--device", "00:05.0", "ping"], "exclude each other"),
        (["--device", "00:02", "ping"], "wrong --device '00:02'"),
        (["ping", "--device", "0000:00:02"], "like 0000:00:05.0 or 00:05.0"),
        (["--device", "00:0g.0", "ping"], "wrong --device '00:0g.0'"),
        (["--device", "0:00:02.0", "ping"], "wrong --device '0:00:02.0'"),
        (["--device", "00:02.0 ", "ping"], "wrong --device '00:02.0 '"),
        (["--device", "../../etc", "ping"], "wrong --device '../../etc'"),
        (["--device", "", "ping"], "wrong --device ''"),
        (["sgemm", "--n", "4097"], "from 1 to 4096"),
        (["bench", "--op", "fly"], "wrong --op 'fly'"),
        (["bench", "--count", "1", "--seconds", "1"], "exclude each other"),
        (["bench", "--outstanding", "2"], "needs --socket"),
        (["--socket", "/x", "bench", "--outstanding", "1025"], "from 1 to 1024"),
    ],
)
def test_usage(arguments, message):
    done = run(*arguments, status=USAGE)
    assert message in done.stderr
    assert done.stdout == ""


def test_no_mediator(tmp_path):
    path = tmp_path / "none.sock"
    done = run("--socket", path, "ping", status=UNAVAILABLE)
    assert f"'{path}'" in done.stderr and "mediator" in done.stderr
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert "not running" in run("--socket", path, "ping", status=UNAVAILABLE).stderr
    run("--socket", "/" + "x" * 200, "ping", status=UNAVAILABLE)
    error = run_json(path, "ping", status=UNAVAILABLE)["error"]
    assert str(path) in error["text"]


@pytest.mark.parametrize(
    "address, whole", [("ffff:ff:1f.7", "ffff:ff:1f.7"), ("FF:1F.7", "0000:ff:1f.7")]
)
def test_no_device(address, whole):
    done = run("--device", address, "ping", status=UNAVAILABLE)
    assert f"{whole} is no PCI device" in done.stderr


def test_static_client(mediator):
    static = BUILD / "bin" / "vgpu-client-static"
    if not static.exists():
        pytest.skip("a build with sanitizers has no static client")
    dynamic = subprocess.run(["readelf", "-d", static], capture_output=True, text=True, check=True)
    assert "NEEDED" not in dynamic.stdout
    subprocess.run(
        [static, "--socket", mediator(answer_all), "add", "1", "2"], check=True, timeout=LIMIT_S
    )

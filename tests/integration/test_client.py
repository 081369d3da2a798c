# SPDX-License-Identifier: MIT
"""vgpu-client's commands and its command line, with every exit status."""

import json
import socket
import struct
import subprocess

import pytest

import wire
from client_peer import (
    FAILED, LIMIT_S, UNAVAILABLE, USAGE, answer_all, new_mediator, results_of, run, run_json,
)
from paths import BUILD


def test_hello_comes_first(scripted):
    seen = []

    def script(peer):
        seen.append((peer.hello.type, struct.unpack("<4I", peer.hello_payload)))
        new_mediator(peer)

    run("--socket", scripted(script), "ping")
    assert seen[0][0] == wire.MSG_HELLO
    assert seen[0][1][:2] == (1, wire.FEATURE_BUSY)


def test_info(scripted):
    report = run_json(scripted(new_mediator), "info")
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
    text = run("--socket", scripted(new_mediator), "info").stdout
    assert "backend: cuda" in text
    assert "\x1b" not in text


def test_info_of_an_old_mediator(scripted):
    """No HELLO back, and GET_DEVICE_INFO with fewer results."""

    def old(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [0, 0])

    report = run_json(scripted(old), "info")
    assert report["extended_mediator"] is False
    assert report["gpu"] == {"name": "", "backend": "cpu", "capability": "0.0"}


def test_ping(scripted):
    done = run("--socket", scripted(new_mediator), "ping", "--count", 3)
    *answers, summary = done.stdout.splitlines()
    assert [line.split(":")[0] for line in answers] == ["answer 1", "answer 2", "answer 3"]
    assert summary.startswith("3 answers: min ")
    assert len(run("--socket", scripted(new_mediator), "ping").stdout.splitlines()) == 1
    report = run_json(scripted(new_mediator), "ping", "--count", 3)
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
def test_add(scripted, script, a, b, total):
    assert run("--socket", scripted(script), "add", a, b).stdout == f"{a} + {b} = {total}\n"
    report = run_json(scripted(script), "add", a, b)
    assert (report["a"], report["b"], report["sum"], report["gpu_us"]) == (a, b, total, 7)


def test_options_after_the_arguments(scripted):
    done = run("add", "-1", "-2", "--socket", scripted(answer_all), "--json")
    assert json.loads(done.stdout)["sum"] == -3


def test_wrong_sum(scripted):
    def script(peer):
        id_, _ = peer.receive()
        peer.respond(id_, [301])

    done = run("--socket", scripted(script), "add", 100, 200, status=FAILED)
    assert "wrong sum" in done.stderr


def test_sgemm(scripted):
    done = run("--socket", scripted(new_mediator), "sgemm", "--n", 33, "--seed", 5, "--count", 2)
    lines = done.stdout.splitlines()
    low, high = wire.sgemm_results(33, 5)[:2]
    assert lines[0].startswith(f"n 33, seed 5, checksum 0x{high << 32 | low:016x}, ")
    assert lines[1].startswith("n 33, seed 6, ")
    assert all(line.endswith(", verified") and "GFLOP/s" in line for line in lines)
    report = run_json(scripted(new_mediator), "sgemm", "--n", 8)
    assert report["verified"] is True
    assert report["gflops"] >= 0


@pytest.mark.parametrize("word, why", [(0, "checksum"), (1, "checksum"), (2, "sample"), (5, "sample")])
def test_sgemm_catches_a_wrong_product(scripted, word, why):
    def script(peer):
        id_, request = peer.receive()
        results = results_of(request)
        results[word] ^= 0x00800000
        peer.respond(id_, results)

    assert f"wrong {why}" in run(
        "--socket", scripted(script), "sgemm", "--n", 16, status=FAILED
    ).stderr
    done = run("--socket", scripted(script), "sgemm", "--n", 16, "--no-verify")
    assert "not verified" in done.stdout


def test_spin_fault_hang(scripted):
    seen = []

    def script(peer):
        id_, request = peer.receive()
        seen.append((request.opcode, request.params))
        peer.respond(id_)

    for command in (["spin", 1500], ["fault"], ["hang"]):
        run("--socket", scripted(script), *command)
    assert seen == [(wire.OP_SPIN, [1500]), (wire.OP_FAULT, []), (wire.OP_HANG, [])]


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


def test_static_client(scripted):
    static = BUILD / "bin" / "vgpu-client-static"
    if not static.exists():
        pytest.skip("a build with sanitizers has no static client")
    dynamic = subprocess.run(["readelf", "-d", static], capture_output=True, text=True, check=True)
    assert "NEEDED" not in dynamic.stdout
    subprocess.run(
        [static, "--socket", scripted(answer_all), "add", "1", "2"], check=True, timeout=LIMIT_S
    )

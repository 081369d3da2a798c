# SPDX-License-Identifier: MIT
"""vgpu-admin and the mediator: what it shows of one that runs, and of one that does not."""

import copy
import json
import re
import shutil
import socket
import subprocess

import pytest

from admin_host import ANSWERS, LIVE_VM, UUID1, UUID2, UUID3, FakeMediator
from paths import ADMIN


@pytest.fixture
def mediator(host):
    served = FakeMediator(host.socket, copy.deepcopy(ANSWERS))
    yield served
    served.close()


@pytest.mark.parametrize("arguments", [
    ["show-health"], ["health"], ["show-connections"], ["list-jobs"], ["list-workers"],
    ["show-metrics"], ["metrics", "--prometheus"], ["cancel-job", "--job=1"], ["reload-config"],
    ["show-config"], ["status"]])
def test_live_commands_without_a_mediator(registered, arguments):
    done = registered.run(*arguments)
    assert done.returncode == 5
    assert b"not running" in done.stderr + done.stdout
    # A socket that a dead mediator left behind is the same.
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(registered.socket))
    left.close()
    assert registered.run(*arguments).returncode == 5


def test_status_without_a_mediator_shows_the_registry(registered):
    text = registered.run("status").stdout.decode()
    assert "NOT RUNNING" in text and "web" in text and "2 VMs" in text
    answer = json.loads(registered.run("--json", "status").stdout)
    assert answer["mediator"] == {"running": False}
    assert answer["database"]["vms"] == 2 and len(answer["vms"]) == 2
    registered.ok("remove-vm", f"--vm-uuid={UUID2}")
    assert " 1 VM, 0 quarantined" in registered.run("status").stdout.decode()
    registered.db.write_bytes(b"garbage" * 100)
    done = registered.run("status")
    assert done.returncode == 5 and b"NOT READABLE" in done.stdout


def test_status_with_a_mediator(registered, mediator):
    text = registered.ok("status")
    for word in ("running", "cpu", "1 h 1 min", "H100", "web", "100 us", "3.00 s", "25.0%"):
        assert word in text
    answer = registered.json("status")
    assert answer["mediator"]["running"] and answer["mediator"]["pid"] == 42
    assert answer["vms"] == [LIVE_VM] and answer["gpus"][0]["name"] == "H100"
    registered.db.write_bytes(b"garbage" * 100)
    assert "NOT READABLE" in registered.run("status").stdout.decode()
    assert registered.run("status").returncode == 1


@pytest.mark.parametrize("command,key,words", [
    ("show-connections", "connections", ["77", "65540"]),
    ("list-jobs", "jobs", ["8", "add", "queued", "1.5 ms"]),
    ("list-workers", "workers", ["99", "ready", "8.0 s"]),
    ("show-health", "gpus", ["H100", "degraded"]),
    ("health", "gpus", ["GPU-1"]),
    ("show-metrics", "vms", ["41", "12.3", "4.3 ms", "2.0 ms", "1 min 1 s"]),
])
def test_live_views(host, mediator, command, key, words):
    text = host.ok(command)
    for word in words:
        assert word in text
    assert len(host.json(command)[key]) == 1
    mediator.answers[mediator.methods()[0]] = {}
    assert host.json(command)[key] == []
    assert len(host.ok(command).splitlines()) == 1


# What each command needs besides its name, to do something.
ARGUMENTS = {
    "help": [], "scan-vms": [], "register-vm": [f"--vm-uuid={UUID3}", "--name=x"],
    "show-vm": [f"--vm-uuid={UUID1}"], "update-vm": [f"--vm-uuid={UUID1}", "--name=y"],
    "remove-vm": [f"--vm-uuid={UUID3}"], "set-pool": ["--all", "--pool=A"],
    "set-priority": ["--pool=A", "--priority=low"],
    "set-vm-id": [f"--vm-uuid={UUID1}", "--vm-id=9"], "set-weight": ["--all", "--weight=2"],
    "set-rate-limit": ["--all", "--rate=2"], "set-timeout": ["--pool=B", "--timeout=50"],
    "set-memory-quota": ["--all", "--memory-quota=5"], "quarantine-vm": ["--pool=A"],
    "clear-quarantine": ["--all"], "unquarantine-vm": ["--all"], "show-pool": ["--pool=B"],
    "set-enabled": ["--pool=A", "--enabled=yes"], "drain": ["--gpu=0"], "resume": ["--gpu=0"],
    "cancel-job": ["--job=8"], "metrics": ["--prometheus"], "show-weights": ["--verbose"],
}


def test_every_command_answers_in_json(registered, mediator):
    """One JSON value on standard output, whatever the command says to people."""
    registered.xe([])
    mediator.answers["drain"] = mediator.answers["resume"] = {"index": 0, "health": "ok"}
    registered.ok("export", registered.path / "export.json")
    commands = [command["name"] for command in registered.json("help")["commands"]]
    for name in commands:
        arguments = [registered.path / "export.json"] if name == "import" else ARGUMENTS.get(name, [])
        done = registered.run("--json", name, *arguments)
        assert done.returncode == 0 or name == "check", (name, done.stderr)
        assert isinstance(json.loads(done.stdout), dict), name
        assert registered.run(name, *arguments, "--json", "--nonsense").returncode == 2


@pytest.mark.parametrize("command,selects", [
    ("set-pool", False), ("set-priority", True), ("set-weight", True), ("set-rate-limit", True),
    ("set-memory-quota", True), ("quarantine-vm", True), ("clear-quarantine", True)])
def test_many_with_one_that_fails(registered, mediator, command, selects):
    """Of all, or of a pool, what can be done is; what failed is named, and that is exit 1."""
    registered.ok("register-vm", f"--vm-uuid={UUID3}", "--name=third", "--pool=A")
    registered.ok("quarantine-vm", "--all")
    registered.sql("CREATE TRIGGER no BEFORE UPDATE ON vms WHEN new.vm_uuid = '" + UUID1 + "' "
                   "BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    options = [a for a in ARGUMENTS[command] if not a.startswith(("--all", "--pool"))]
    if command == "quarantine-vm":
        options = ["--reason=another"]
    choices = ["--all", "--pool=A"] if selects else ["--all"]
    for choice in choices:
        if command == "set-pool":
            options = ["--pool=B"]
        done = registered.run("--json", command, choice, *options)
        assert done.returncode == 1, (choice, done.stdout)
        answer = json.loads(done.stdout)
        assert [vm["vm_uuid"] for vm in answer["failed"]] == [UUID1]
        assert f"VM {UUID1}: ".encode() in done.stderr
        assert UUID3 in [vm["vm_uuid"] for vm in answer["changed"]]
        assert "not this one" in answer["failed"][0]["message"] and answer["mediator"] == "reloaded"


def test_why_a_gpu_is_not_well(host, mediator):
    gpu, = mediator.answers["health"]["gpus"]
    gpu["reasons"] = [{"message": "too \x1b hot", "remedy": "check the fans"}]
    _, details = host.ok("health").split("\nGPU 0:\n")
    assert details.splitlines()[:2] == ["  Why        too \\x1b hot", "             -> check the fans"]


def test_metrics_as_served(host, mediator):
    assert host.ok("metrics", "--prometheus") == ANSWERS["show-metrics"]["text"]
    mediator.answers["show-metrics"] = {}
    assert "without metrics" in host.fails(1, "show-metrics", "--prometheus")


@pytest.mark.parametrize("answer,said", [
    ({"health": "draining"}, "draining"), ({}, "done"), ({"health": 5}, "done")])
def test_drain_by_a_mediator_that_says_little(host, mediator, answer, said):
    mediator.answers["drain"] = answer
    assert host.ok("drain", "--gpu=0") == f"GPU 0: {said}\n"


def test_show_config(host, mediator):
    assert host.ok("show-config") == "quantum_us = 4000\ndb = /x\\x1b\n"
    assert host.json("show-config")["quantum_us"] == "4000"


def test_cancel_and_reload(host, mediator):
    assert "cancelled" in host.ok("cancel-job", "--job=8")
    assert mediator.requests[-1]["params"] == {"job": 8}
    text = host.ok("reload-config")
    assert "1 added" in text and "weight 1.00 -> 2.00" in text
    mediator.answers["reload"] = {"added": 0, "removed": 0, "changed": [], "errors": ["bad \x1b"]}
    done = host.run("reload-config")
    assert done.returncode == 1 and b"bad \\x1b" in done.stdout


@pytest.mark.parametrize("answer,said", [
    (b"", "broke"), (b"nonsense\n", "something else"), (b"[]\n", "something else"),
    (b'{"id":1}\n', "something else"), (b'{"id":1,"result":{}', "broke"),
    (None, "refused list-jobs: no such method"),
    (b'{"id":1,"error":{}}\n', "gave no reason")])
def test_odd_answers(host, mediator, answer, said):
    mediator.answers["list-jobs"] = answer
    assert said in host.fails(1, "list-jobs")


def test_changes_are_told_to_a_running_mediator(registered, mediator):
    assert registered.json("set-weight", f"--vm-uuid={UUID1}", "--weight=2")["mediator"] == \
        "reloaded"
    for arguments in (["register-vm", f"--vm-uuid={UUID3}", "--name=x"],
                      ["remove-vm", f"--vm-uuid={UUID3}"], ["set-enabled", "--pool=A",
                                                            "--enabled=no"],
                      ["quarantine-vm", "--all"], ["clear-quarantine", "--all"],
                      ["set-timeout", "--pool=A", "--timeout=99"]):
        registered.ok(*arguments)
    assert mediator.methods() == ["reload"] * 7
    # Nothing changed, nothing told.
    registered.fails(3, "remove-vm", f"--vm-uuid={UUID3}")
    registered.fails(2, "set-weight", "--all", "--weight=0")
    registered.ok("list-vms")
    assert mediator.methods() == ["reload"] * 7


def test_a_mediator_that_refuses(registered, mediator):
    mediator.answers["reload"] = None
    done = registered.run("set-weight", f"--vm-uuid={UUID1}", "--weight=2")
    assert done.returncode == 0 and b"has not taken it over" in done.stderr
    mediator.answers["reload"] = {"errors": ["VM x: weight is 7e9"]}
    assert b"VM x: weight" in registered.run("set-weight", "--all", "--weight=2").stderr
    assert registered.vm()["weight"] == 2.0


def test_shares_now(registered, mediator):
    """What the mediator says counts; of a VM that it does not serve nothing is known."""
    rows = registered.json("show-weights")["vms"]
    assert [row.get("share") for row in rows] == [0.25, None]
    assert [row["weight"] for row in rows] == [3.0, 1.0]
    assert registered.json("show-weights", "--verbose")["vms"][0]["key_ms"] == -1.5
    assert re.search(r"waiting +1 +3 +1\.5 ms +0\.500 +4\.0 ms +12\.5% +-1\.500",
                     registered.ok("show-weights", "--verbose"))
    mediator.answers["weights"] = None
    done = registered.run("show-weights")
    assert done.returncode == 0 and b"refused weights" in done.stderr
    registered.fails(1, "show-weights", "--verbose")


# ---- check ----

def test_check(registered, mediator):
    mediator.answers["show-config"] = {}
    registered.xe([])
    rows = {r["check"]: r for r in json.loads(registered.run("--json", "check").stdout)["checks"]}
    assert [rows[k]["result"] for k in ("registry", "VMs", "mediator", "xe")] == ["ok"] * 4
    assert rows["registry"]["remedy"] is None
    registered.sql("UPDATE vms SET weight = 'x\x1b' WHERE vm_id = 1")
    mediator.answers["ping"] = {"version": "9"}
    done = registered.run("check")
    assert done.returncode == 1
    text = done.stdout.decode()
    assert re.search("failed +VMs +1 of 2", text) and "warning  mediator" in text
    assert "x\\x1b" in text and "\x1b" not in text
    registered.db.write_bytes(b"garbage" * 100)
    assert re.search("failed +registry", registered.run("check").stdout.decode())


def test_check_asks_the_mediator_that_runs(registered, mediator):
    """What it looks at is what that one uses, not what is usual."""
    sockets = registered.path / "vm"
    worker = registered.path / "vgpu-worker"
    mediator.answers["ping"]["worker_program"] = str(worker)
    mediator.answers["show-config"] = {"listen_dir": str(sockets), "db": str(registered.db),
                                       "backend": "cpu"}
    rows = registered.checked(status=1)
    assert rows["worker"] == ("failed", f"{worker} is no program that can be run")
    assert rows["sockets"] == ("failed", f"{sockets}: No such file or directory")
    assert rows["GPU"][0] == "ok"
    worker.write_text("")
    worker.chmod(0o755)
    sockets.mkdir()
    rows = registered.checked(status=0)
    assert rows["worker"] == ("ok", f"{worker} is there")
    assert rows["sockets"] == ("ok", f"{sockets} is there")
    sockets.chmod(0o777)
    assert registered.checked(status=1)["sockets"][0] == "failed"
    # Another registry than the mediator's: what is changed there has no effect.
    registered.ok("backup", registered.path / "other.db")
    rows = registered.checked("--db", registered.path / "other.db", status=1)
    assert rows["registry"][0] == "failed" and str(registered.db) in rows["registry"][1]


def test_check_without_a_mediator(registered):
    rows = registered.checked(status=1)
    assert rows["worker"] == ("ok", f"{ADMIN.parent / 'vgpu-worker'} is there")
    assert rows["sockets"][0] == "warning" and rows["mediator"][0] == "failed"
    # The worker has to be beside the programs, and nowhere else.
    elsewhere = registered.path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(ADMIN, elsewhere)
    done = subprocess.run([elsewhere / "vgpu-admin", "--db", registered.db, "check"],
                          capture_output=True, timeout=60)
    assert f"{elsewhere}/vgpu-worker is no program".encode() in done.stdout

# SPDX-License-Identifier: MIT
"""vgpu-admin from the outside: every command, every exit status, and what it makes of
an xe and of a mediator that behave oddly."""

import copy
import json
import pathlib
import re
import signal
import socket
import sqlite3
import subprocess
import threading

import pytest

from paths import ADMIN

UUID1 = "aaaaaaaa-0000-4000-8000-000000000001"
UUID2 = "bbbbbbbb-0000-4000-8000-000000000002"
UUID3 = "cccccccc-0000-4000-8000-000000000003"

# An xe that logs its arguments and environment, and answers from a file of lines
# "name<TAB>uuid"; MODE makes it misbehave.
FAKE_XE = r"""#!/usr/bin/python3
import os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/calls", "a") as calls:
    calls.write(repr((sys.argv[1:], sorted(os.environ))) + "\n")
mode = open(here + "/mode").read()
if mode == "hang":
    time.sleep(600)
if mode == "hang-child":
    if os.fork() == 0:
        time.sleep(600)
    sys.exit(0)
if mode == "fail":
    sys.stderr.write("Error: Connection refused (calling connect )\nmore\n")
    sys.exit(1)
if mode == "flood":
    while True:
        sys.stdout.write("x" * 65536)
if mode == "junk":
    print("not a uuid")
    sys.exit(0)
assert sys.argv[1] == "vm-list" and "--minimal" in sys.argv
given = dict(a.split("=", 1) for a in sys.argv[2:] if "=" in a)
vms = [l.rstrip("\n").split("\t") for l in open(here + "/vms")]
vms = [(n.encode().decode("unicode_escape"), u) for n, u in vms]
if "uuid" in given:
    vms = [v for v in vms if v[1] == given["uuid"]]
if "name-label" in given:
    vms = [v for v in vms if v[0] == given["name-label"]]
values = [v[0] if given["params"] == "name-label" else v[1] for v in vms]
print(",".join(v.replace("\\", "\\\\").replace(",", "\\,") for v in values))
"""


class Host:
    """A directory with a registry, an xe, and perhaps a mediator."""

    def __init__(self, path):
        self.path = path
        self.db = path / "vgpu.db"
        self.socket = path / "admin.sock"
        self.bin = path / "bin"
        self.bin.mkdir()

    def xe(self, vms=(), mode="normal"):
        (self.bin / "xe").write_text(FAKE_XE)
        (self.bin / "xe").chmod(0o755)
        (self.bin / "mode").write_text(mode)
        (self.bin / "vms").write_text("".join(f"{n}\t{u}\n" for n, u in vms))

    def xe_calls(self):
        calls = self.bin / "calls"
        return [eval(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def run(self, *arguments, env=None, **more):
        environment = {"PATH": str(self.bin), "LC_ALL": "C.UTF-8", **(env or {})}
        return subprocess.run(
            [ADMIN, "--db", self.db, "--admin-socket", self.socket, *arguments],
            env=environment, capture_output=True, timeout=60, **more)

    def ok(self, *arguments, **more):
        done = self.run(*arguments, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *arguments):
        return json.loads(self.ok("--json", *arguments))

    def fails(self, status, *arguments, **more):
        done = self.run(*arguments, **more)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stderr.decode()

    def vm(self, uuid=UUID1):
        return self.json("show-vm", f"--vm-uuid={uuid}")

    def sql(self, text, *values):
        with sqlite3.connect(self.db) as db:
            rows = db.execute(text, values).fetchall()
        db.close()
        return rows


@pytest.fixture
def host(directory):
    return Host(directory)


@pytest.fixture
def registered(host):
    """Two VMs, one in each pool."""
    host.ok("register-vm", f"--vm-uuid={UUID1}", "--name=web", "--pool=A")
    host.ok("register-vm", f"--vm-uuid={UUID2}", "--name=db", "--pool=B", "--priority=high")
    return host


class Mediator:
    """The mediator's admin socket: answers from a table, remembers what it was asked."""

    def __init__(self, path, answers):
        self.answers = answers
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                line = stream.readline()
                if not line:
                    continue
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answers.get(request["method"])
                if isinstance(answer, bytes):
                    stream.write(answer)
                elif answer is None:
                    stream.write(json.dumps({"id": request["id"], "error": {
                        "code": -32601, "message": "no such method"}}).encode() + b"\n")
                else:
                    stream.write(json.dumps({"id": request["id"], "result": answer}).encode()
                                 + b"\n")

    def methods(self):
        return [request["method"] for request in self.requests]

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


LIVE_VM = {"vm_uuid": UUID1, "vm_name": "web", "vm_id": 1, "pool": "A", "priority": "medium",
           "weight": 1.0, "connected": 2, "queue_depth": 3, "in_flight": 1, "worker": "ready",
           "jobs_done": 41, "jobs_failed": 5, "refused": 6, "quarantined": False,
           "submission_rate": 12.345, "job_average_us": 4321,
           "p50_us": 100, "p95_us": 2000, "p99_us": 3000000, "share": 0.25,
           "share_target": 0.5, "charged_s": 61}
LIVE_WEIGHTS = {"vm_uuid": UUID1, "vm_name": "web", "vm_id": 1, "pool": "A", "priority": "medium",
                "weight": 3.0, "gpu": 0, "share": 0.25, "share_target": 0.5, "priority_factor": 2,
                "phi": 6.0, "turn": "waiting", "queued": 3, "in_flight": 1, "head_wait_us": 1500,
                "start_ms": 0.5, "turn_average_us": 4000, "boost": 0.125, "key_ms": -1.5}
ANSWERS = {
    "weights": {"weights": [LIVE_WEIGHTS]},
    "ping": {"version": "0.3.0", "pid": 42},
    "status": {"version": "0.3.0", "pid": 42, "uptime_s": 3700, "backend": "cpu", "workers": 1,
               "queue_depth": 3, "gpus": [{"index": 0, "uuid": "GPU-1", "name": "H100",
                                           "health": "ok"}],
               "vms": [LIVE_VM], "database": {"path": "/x", "ok": True}},
    "health": {"gpus": [{"index": 0, "uuid": "GPU-1", "name": "H100", "health": "degraded",
                         "reasons": []}]},
    "reload": {"added": 1, "removed": 0, "changed": ["web: weight 1.00 -> 2.00"], "errors": []},
    "show-metrics": {"text": "# HELP vgpu_workers w\nvgpu_workers 1\n"},
    "show-connections": {"connections": [{"vm_uuid": UUID1, "vm_name": "web", "peer_pid": 77,
                                          "peer_uid": 65540, "since_s": 5, "paused": False,
                                          "requests": 9}]},
    "list-jobs": {"jobs": [{"job": 8, "vm_uuid": UUID1, "vm_name": "web", "opcode": "add",
                            "state": "queued", "age_us": 1500}]},
    "list-workers": {"workers": [{"vm_uuid": UUID1, "vm_name": "web", "pid": 99,
                                  "state": "ready", "backend": "cpu", "gpu": 0, "age_s": 8,
                                  "in_flight": 1}]},
    "cancel-job": {"cancelled": 8},
    "show-config": {"quantum_us": "4000", "db": "/x\x1b"},
}


@pytest.fixture
def mediator(host):
    served = Mediator(host.socket, copy.deepcopy(ANSWERS))
    yield served
    served.close()


# ---- the command line as such ----

def commands():
    text = subprocess.run([ADMIN, "help"], capture_output=True, check=True).stdout.decode()
    listed = text.split("Commands:\n")[1].split("\n\n")[0]
    return re.findall(r"^  ([a-z-]+) ", listed, re.M)


def test_help_knows_every_command_of_the_contract(host):
    for name in """scan-vms register-vm show-vm list-vms set-pool set-priority set-vm-id update-vm
            remove-vm list-pools show-pool status help set-weight show-weights set-rate-limit
            show-rate-limits quarantine-vm clear-quarantine show-metrics show-health
            show-connections reload-config metrics health unquarantine-vm set-timeout
            set-memory-quota set-enabled list-jobs cancel-job list-workers check backup export
            import""".split():
        assert name in commands()


@pytest.mark.parametrize("name", commands() if ADMIN.exists() else [])
def test_every_command_has_help_and_refuses_what_it_does_not_know(host, name):
    text = host.ok(name, "--help")
    assert f"vgpu-admin {name}" in text and "--json" in text
    assert text == host.ok("--help", name) == host.ok("help", name)
    assert "Try: vgpu-admin" in host.fails(2, name, "--no-such-option")
    assert "surplus" in host.fails(2, name, "surplus", "surplus")
    assert not host.db.exists()


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["--nonsense"], ["help", "nonsense"], ["import"], ["register-vm"],
    ["show-vm"], ["set-weight", "--all"], ["set-weight", "--weight=2"],
    ["set-weight", "--weight=2", "--all", f"--vm-uuid={UUID1}"],
    ["show-vm", f"--vm-uuid={UUID1}", "--vm-name=web"], ["show-vm", "--vm-name="],
    ["show-vm", "--all"], ["update-vm", f"--vm-uuid={UUID1}"],
    ["set-pool", "--all"], ["set-pool", "--all", "--pool=C"], ["set-pool", "--all", "--pool=A",
                                                              "--pool-id=A"],
    ["show-pool"], ["show-pool", "--pool-id=AB"], ["list-vms", "--pool=x"],
    ["set-priority", "--all", "--priority=urgent"], ["set-enabled", "--pool=A"],
    ["set-enabled", "--pool=A", "--enabled=maybe"], ["set-enabled", "--enabled=yes"],
    ["set-timeout", "--pool=A", "--all", "--timeout=10"], ["cancel-job"],
    ["cancel-job", "--job=x"], ["--xe-timeout=0", "scan-vms"], ["--xe-timeout=x", "scan-vms"],
    ["register-vm", "--vm-uuid=zz"], ["show-vm", f"--vm-uuid={UUID1}x"],
    ["update-vm", f"--vm-uuid={UUID1}", "--allow-cubin=1"],
])
def test_usage_errors(registered, arguments):
    before = registered.db.read_bytes()
    assert registered.fails(2, *arguments)
    assert registered.db.read_bytes() == before


def test_global_options_stand_anywhere(host):
    assert json.loads(host.ok("list-pools", "--json"))["pools"][1]["pool"] == "B"
    assert host.ok("--version").startswith("vgpu-admin ")


def test_errors_are_json_too(host):
    done = host.run("--json", "show-vm", f"--vm-uuid={UUID1}")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["exit_status"] == 3


def test_full_output_is_no_success(registered):
    with open("/dev/full", "w") as full:
        done = subprocess.run([ADMIN, "--db", registered.db, "list-vms"], stdout=full,
                              stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert b"cannot write" in done.stderr


# ---- registering and showing ----

def test_register_defaults(host):
    host.ok("register-vm", f"--vm-uuid={UUID1}", "--name=web")
    vm = host.vm()
    assert (vm["vm_id"], vm["pool"], vm["priority"], vm["weight"]) == (1, "A", "medium", 1.0)
    assert [vm[k] for k in ("max_jobs_per_sec", "max_queue_depth", "burst", "job_timeout_ms",
                            "memory_quota_mib", "gpu_seconds_per_sec")] == [0] * 6
    assert not vm["quarantined"] and not vm["allow_cubin"] and vm["problem"] is None


def test_register_everything(host):
    host.ok("register-vm", f"--vm-uuid={UUID1.upper()}", "--name=web", "--pool-id=B",
            "--priority=low", "--vm-id=200", "--weight=2.5", "--rate=0.5", "--burst=7",
            "--queue-depth=8", "--gpu-seconds=0.25", "--timeout=500", "--memory-quota=64",
            "--allow-cubin=yes")
    vm = host.vm()
    assert vm["vm_uuid"] == UUID1
    assert {k: vm[k] for k in ("vm_name", "vm_id", "pool", "priority", "weight",
                               "max_jobs_per_sec", "burst", "max_queue_depth",
                               "gpu_seconds_per_sec", "job_timeout_ms", "memory_quota_mib",
                               "allow_cubin")} == {
        "vm_name": "web", "vm_id": 200, "pool": "B", "priority": "low", "weight": 2.5,
        "max_jobs_per_sec": 0.5, "burst": 7, "max_queue_depth": 8, "gpu_seconds_per_sec": 0.25,
        "job_timeout_ms": 500, "memory_quota_mib": 64, "allow_cubin": True}
    host.ok("register-vm", f"--vm-uuid={UUID2}", "--name=x")
    assert host.vm(UUID2)["vm_id"] == 201


def test_register_twice_and_taken_numbers(registered):
    assert "registered already" in registered.fails(1, "register-vm", f"--vm-uuid={UUID1}",
                                                    "--name=x")
    assert UUID1 in registered.fails(1, "register-vm", f"--vm-uuid={UUID3}", "--vm-id=1",
                                     "--name=x")
    assert UUID1 in registered.fails(1, "set-vm-id", f"--vm-uuid={UUID2}", "--vm-id=1")
    for bad in ("-1", "4294967296", "x", "", "1.5"):
        assert "--vm-id=" in registered.fails(2, "set-vm-id", f"--vm-uuid={UUID2}",
                                              f"--vm-id={bad}")
    registered.ok("set-vm-id", f"--vm-uuid={UUID2}", "--vm-id=4294967295")
    assert registered.vm(UUID2)["vm_id"] == 4294967295


def test_unknown_vm(registered):
    for arguments in (["show-vm"], ["remove-vm"], ["set-weight", "--weight=2"],
                      ["quarantine-vm"], ["clear-quarantine"], ["update-vm", "--name=x"]):
        assert UUID3 in registered.fails(3, *arguments, f"--vm-uuid={UUID3}")


def test_lists(registered):
    text = registered.ok("list-vms")
    assert "web" in text and UUID2 in text
    assert [vm["vm_uuid"] for vm in registered.json("list-vms")["vms"]] == [UUID1, UUID2]
    assert [vm["vm_uuid"] for vm in registered.json("list-vms", "--pool=B")["vms"]] == [UUID2]
    assert [pool["vms"] for pool in registered.json("list-pools")["pools"]] == [1, 1]
    pool = registered.json("show-pool", "--pool-id=B")
    assert [vm["vm_uuid"] for vm in pool["members"]] == [UUID2]
    assert "Pool B" in registered.ok("show-pool", "--pool-id=B")


def test_remove(registered):
    registered.ok("remove-vm", f"--vm-uuid={UUID1}")
    assert [vm["vm_uuid"] for vm in registered.json("list-vms")["vms"]] == [UUID2]


def test_reading_makes_no_file(host):
    assert host.json("list-vms")["vms"] == []
    assert b"there is no registry" in host.run("list-pools").stderr
    assert not host.db.exists()
    done = host.run("--db", host.path / "none" / "x.db", "list-vms")
    assert done.returncode == 1 and b"no directory" in done.stderr


@pytest.mark.parametrize("name", [
    "it's", 'a "b"', "'; DROP TABLE vms; --", "caf\u00e9 \u20ac", "two\nlines", "tab\there",
    "\x1b[2Jclear", "", "x" * 5000, "$(touch /tmp/pwned)", "a,b\\c", "=", "--all"])
def test_odd_names(host, name):
    host.ok("register-vm", f"--vm-uuid={UUID1}", f"--name={name}")
    assert host.vm()["vm_name"] == name
    for command in ("list-vms", "show-weights", "show-rate-limits"):
        text = host.ok(command)
        assert "\x1b" not in text and len(text.splitlines()) == 2
    assert "\x1b" not in host.ok("show-vm", f"--vm-uuid={UUID1}")
    host.ok("update-vm", f"--vm-uuid={UUID1}", "--name=plain")
    assert host.vm()["vm_name"] == "plain"


def test_names_that_are_no_utf8(host):
    host.run("register-vm", f"--vm-uuid={UUID1}", b"--name=a\xffb", check=True)
    assert host.vm()["vm_name"] == "a\ufffdb"
    assert "a\ufffdb" in host.ok("list-vms")


def test_columns_line_up(host):
    for number, name in ((1, "e\u0301\u20ac"), (2, "plain"), (3, "\u65e5\u672c" * 40)):
        host.ok("register-vm", f"--vm-uuid=aaaaaaaa-0000-4000-8000-00000000000{number}",
                f"--name={name}")
    lines = host.ok("list-vms").splitlines()
    assert len({line.index(" A ") for line in lines[1:]}) == 1
    assert "\u2026" in lines[3]


# ---- changing ----

@pytest.mark.parametrize("command,option,column,good", [
    ("set-weight", "weight", "weight", ["1", "1.00", "2.5", "100", "99.99"]),
    ("set-rate-limit", "rate", "max_jobs_per_sec", ["0", "0.001", "12.5", "1000000"]),
    ("set-rate-limit", "burst", "burst", ["0", "1", "1000000"]),
    ("set-rate-limit", "queue-depth", "max_queue_depth", ["0", "1", "65536"]),
    ("set-rate-limit", "gpu-seconds", "gpu_seconds_per_sec", ["0", "0.001", "1"]),
    ("set-timeout", "timeout", "job_timeout_ms", ["0", "10", "86400000"]),
    ("set-memory-quota", "memory-quota", "memory_quota_mib", ["0", "1", "1048576"]),
])
def test_settings(registered, command, option, column, good):
    for value in good:
        registered.ok(command, f"--vm-uuid={UUID1}", f"--{option}={value}")
        assert registered.vm()[column] == float(value)
        registered.ok("update-vm", f"--vm-uuid={UUID2}", f"--{option}={value}")
        assert registered.vm(UUID2)[column] == float(value)
    before = registered.db.read_bytes()
    for value in ("-1", "nan", "NaN", "inf", "-inf", "1e999", "1e1", "", "5x", " 5", "0x5", "1,5",
                  "1.0005", "99999999999999999999", "\u0661"):
        said = registered.fails(2, command, f"--vm-uuid={UUID1}", f"--{option}={value}")
        assert f"--{option}={value}" in said and "allowed is" in said
    assert registered.db.read_bytes() == before


@pytest.mark.parametrize("value", ["0.9", "0.99", "100.1", "100.01", "1.005", "0", "101"])
def test_weights_out_of_range(registered, value):
    said = registered.fails(2, "set-weight", f"--vm-uuid={UUID1}", f"--weight={value}")
    assert value in said and "1.00 to 100.00" in said
    assert registered.vm()["weight"] == 1.0


def test_each_limit_on_its_own(registered):
    registered.ok("set-rate-limit", f"--vm-uuid={UUID1}", "--rate=5", "--queue-depth=6")
    registered.ok("set-rate-limit", f"--vm-uuid={UUID1}", "--burst=7")
    vm = registered.vm()
    assert (vm["max_jobs_per_sec"], vm["max_queue_depth"], vm["burst"]) == (5, 6, 7)
    # One bad value and nothing is changed.
    registered.fails(2, "set-rate-limit", f"--vm-uuid={UUID1}", "--rate=9", "--burst=x")
    assert registered.vm()["max_jobs_per_sec"] == 5
    row = registered.json("show-rate-limits")["vms"][0]
    assert row["max_jobs_per_sec"] == 5
    assert re.search(r"web +5 +7 +6", registered.ok("show-rate-limits"))


def test_many_at_once(registered):
    changed = registered.json("set-weight", "--all", "--weight=3")
    assert [vm["vm_uuid"] for vm in changed["changed"]] == [UUID1, UUID2]
    assert changed["failed"] == [] and changed["mediator"] == "not running"
    registered.ok("set-priority", "--pool=B", "--priority=low")
    assert [registered.vm(u)["priority"] for u in (UUID1, UUID2)] == ["medium", "low"]
    registered.ok("set-pool", "--all", "--pool=B")
    assert [registered.vm(u)["pool"] for u in (UUID1, UUID2)] == ["B", "B"]
    assert "nothing to do" in registered.ok("set-weight", "--pool=A", "--weight=4")


def test_many_with_failures(registered):
    registered.sql("CREATE TRIGGER no BEFORE UPDATE ON vms WHEN new.vm_id = 1 AND new.weight = 9 "
                   "BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    done = registered.run("--json", "set-weight", "--all", "--weight=9")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert [vm["vm_uuid"] for vm in answer["changed"]] == [UUID2]
    assert [vm["vm_uuid"] for vm in answer["failed"]] == [UUID1]
    assert "not this one" in answer["failed"][0]["message"]
    assert [registered.vm(u)["weight"] for u in (UUID1, UUID2)] == [1.0, 9.0]


def test_pools(registered):
    assert registered.json("set-enabled", "--pool-id=B", "--enabled=no")["enabled"] is False
    assert registered.json("set-timeout", "--pool=B", "--timeout=500")["job_timeout_ms"] == 500
    pools = registered.json("list-pools")["pools"]
    assert [(p["enabled"], p["job_timeout_ms"]) for p in pools] == [(True, 0), (False, 500)]
    assert registered.vm(UUID2)["job_timeout_ms"] == 0
    registered.ok("set-enabled", "--pool=B", "--enabled=yes")
    assert registered.json("show-pool", "--pool=B")["enabled"] is True
    registered.sql("DELETE FROM pools WHERE pool_id = 'B'")
    assert registered.json("set-enabled", "--pool=B", "--enabled=no")["enabled"] is False
    assert registered.json("show-pool", "--pool=B")["enabled"] is False


def test_quarantine(registered):
    registered.ok("quarantine-vm", f"--vm-uuid={UUID1}", "--reason=smells; 'odd'",
                  env={"SUDO_USER": "alice"})
    vm = registered.vm()
    assert vm["quarantined"] and vm["quarantine_reason"] == "smells; 'odd'"
    assert vm["quarantined_by"] == "alice" and vm["quarantined_at"] > 1600000000
    assert "alice" in registered.ok("show-vm", f"--vm-uuid={UUID1}")
    registered.sql("UPDATE vms SET error_count = 4")
    registered.sql("INSERT INTO faults (vm_uuid, at, kind, points) VALUES (?, 1, 'timeout', 3)",
                   UUID1)
    registered.ok("clear-quarantine", f"--vm-uuid={UUID1}", "--reason=mended",
                  env={"SUDO_USER": "bob"})
    vm = registered.vm()
    assert not vm["quarantined"] and vm["quarantine_reason"] is None and vm["error_count"] == 4
    assert [tuple(f[key] for key in ("kind", "points", "detail", "by")) for f in vm["faults"]] == [
        ("quarantined", 0, "smells; 'odd'", "alice"),
        ("timeout", 0, None, None),
        ("cleared", 0, "mended", "bob"),
    ]
    shown = registered.ok("show-vm", f"--vm-uuid={UUID1}")
    assert all(word in shown for word in ("alice", "smells", "bob", "mended"))
    registered.ok("quarantine-vm", "--all")
    registered.ok("quarantine-vm", f"--vm-uuid={UUID1}", "--reason=worse")
    assert registered.vm()["quarantine_reason"] == "worse"
    registered.ok("unquarantine-vm", "--pool=A")
    assert [registered.vm(u)["quarantined"] for u in (UUID1, UUID2)] == [False, True]


def test_weights_come_to_shares(registered):
    # web: 1 x 2, db: 1 x 4; a third that is quarantined claims nothing.
    registered.ok("register-vm", f"--vm-uuid={UUID3}", "--name=bad", "--weight=100")
    registered.ok("quarantine-vm", f"--vm-uuid={UUID3}")
    shares = [vm["share_target"] for vm in registered.json("show-weights")["vms"]]
    assert shares == pytest.approx([1 / 3, 2 / 3, 0])
    assert registered.json("show-weights", "--pool=B")["vms"][0]["share_target"] == \
        pytest.approx(2 / 3)
    assert "66.7%" in registered.ok("show-weights")


def test_bad_rows_are_shown_and_repaired(registered):
    registered.sql("UPDATE vms SET weight = 1.005 WHERE vm_id = 1")
    done = registered.run("list-vms")
    assert done.returncode == 0 and UUID2.encode() in done.stdout
    assert f"VM {UUID1}: weight is 1.005, allowed is 1.00 to 100.00".encode() in done.stderr
    assert "1.005" in registered.vm()["problem"]
    assert "1.005" in registered.fails(1, "export")
    registered.ok("set-weight", f"--vm-uuid={UUID1}", "--weight=2")
    assert registered.vm()["problem"] is None
    registered.sql("UPDATE vms SET vm_uuid = 'odd one' WHERE vm_id = 1")
    registered.ok("remove-vm", "--vm-uuid=odd one")
    assert len(registered.json("list-vms")["vms"]) == 1


# ---- xe ----

def test_names_go_through_xe(registered):
    # The toolstack calls UUID2 "web" now; the registry's older idea does not count.
    registered.xe([("web", UUID2), ("db", UUID1)])
    registered.ok("set-weight", "--vm-name=web", "--weight=7",
                  env={"XE_EXTRA_ARGS": "--evil", "HOME": "/root"})
    assert registered.vm(UUID2)["weight"] == 7.0
    arguments, environment = registered.xe_calls()[0]
    assert arguments == ["vm-list", "name-label=web", "is-control-domain=false", "params=uuid",
                         "--minimal"]
    assert "XE_EXTRA_ARGS" not in environment and "HOME" not in environment


@pytest.mark.parametrize("name", ["it's", 'a "b"', "a,b\\c", "a=b", "$(id)", "caf\u00e9", "*", "-h"])
def test_odd_names_reach_xe_whole(host, name):
    host.xe([(name.encode("unicode_escape").decode(), UUID1)])
    host.ok("register-vm", f"--vm-name={name}")
    assert host.xe_calls()[0][0][1] == f"name-label={name}"
    assert host.vm()["vm_name"] == name


def test_registering_by_uuid_asks_for_the_name(host):
    host.xe([("a\\\\b, c", UUID1)])
    host.ok("register-vm", f"--vm-uuid={UUID1}")
    assert host.vm()["vm_name"] == "a\\b, c"
    assert b"xe knows no VM" in host.run("register-vm", f"--vm-uuid={UUID2}").stderr
    assert host.vm(UUID2)["vm_name"] is None


def test_xe_finds_none_or_several(registered):
    registered.xe([("twin", UUID1), ("twin", UUID3)])
    assert "xe knows no VM" in registered.fails(3, "show-vm", "--vm-name=web")
    said = registered.fails(4, "show-vm", "--vm-name=twin")
    assert UUID1 in said and UUID3 in said
    registered.xe([("other", UUID3)])
    assert UUID3 in registered.fails(3, "show-vm", "--vm-name=other")


@pytest.mark.parametrize("name", ["a\nparams=uuid", "a\rb", "\x1b[2J", "a\tb", "\x7f"])
def test_control_characters_never_reach_xe(registered, name):
    registered.xe([])
    assert "control characters" in registered.fails(2, "show-vm", f"--vm-name={name}")
    assert registered.xe_calls() == []


@pytest.mark.parametrize("mode,said", [
    ("fail", "Connection refused"), ("hang", "no answer within 0.3 s"),
    ("hang-child", "no answer within 0.3 s"), ("flood", "xe printed more than"), (None, "xe is not installed")])
def test_without_xe_the_registry_decides(registered, mode, said):
    if mode:
        registered.xe([], mode)
    wait = "--xe-timeout=0.3" if mode and mode.startswith("hang") else "--xe-timeout=20"
    done = registered.run(wait, "set-weight", "--vm-name=web", "--weight=4")
    assert done.returncode == 0
    assert said in done.stderr.decode() and UUID1 in done.stderr.decode()
    assert registered.vm()["weight"] == 4.0
    registered.fails(3, wait, "show-vm", "--vm-name=nobody")
    registered.ok("update-vm", f"--vm-uuid={UUID2}", "--name=web")
    said = registered.fails(4, wait, "show-vm", "--vm-name=web")
    assert UUID1 in said and UUID2 in said


def test_an_xe_that_fails_is_no_missing_vm(registered):
    """However vgpu-admin was started: with SIGCHLD ignored the kernel forgets exit statuses."""
    registered.xe([], "fail")
    done = registered.run("show-vm", "--vm-name=web",
                          preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert done.returncode == 0 and b"Connection refused" in done.stderr


def test_junk_from_xe(registered):
    registered.xe([], "junk")
    assert "no UUID" in registered.fails(1, "show-vm", "--vm-name=web")
    assert "no UUID" in registered.fails(1, "scan-vms")


def test_scan(registered):
    registered.xe([("web now", UUID1), ("new\\nline", UUID3)])
    rows = {vm["vm_uuid"]: vm for vm in registered.json("scan-vms")["vms"]}
    assert (rows[UUID1]["vm_name"], rows[UUID1]["registered"]) == ("web now", True)
    assert (rows[UUID3]["vm_name"], rows[UUID3]["registered"]) == ("new\nline", False)
    assert (rows[UUID2]["in_xe"], rows[UUID2]["registered"]) == (False, True)
    assert "new\\nline" in registered.ok("scan-vms")
    registered.xe([], "fail")
    assert "Connection refused" in registered.fails(1, "scan-vms")


# ---- the mediator ----

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


def test_why_a_gpu_is_not_well(host, mediator):
    gpu, = mediator.answers["health"]["gpus"]
    gpu["reasons"] = [{"message": "too \x1b hot", "remedy": "check the fans"}]
    *_, heading, line = host.ok("health").splitlines()
    assert (heading, line) == ("GPU 0:", "  Why        too \\x1b hot; check the fans")


def test_metrics_as_served(host, mediator):
    assert host.ok("metrics", "--prometheus") == ANSWERS["show-metrics"]["text"]
    mediator.answers["show-metrics"] = {}
    assert "without metrics" in host.fails(1, "show-metrics", "--prometheus")


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


# ---- check, backup, export, import ----

def test_check(registered, mediator):
    registered.xe([])
    rows = {r["check"]: r for r in json.loads(registered.run("--json", "check").stdout)["checks"]}
    assert [rows[k]["result"] for k in ("registry", "VMs", "mediator", "xe")] == ["ok"] * 4
    assert rows["registry"]["remedy"] is None
    registered.sql("UPDATE vms SET weight = 'x' WHERE vm_id = 1")
    mediator.answers["ping"] = {"version": "9"}
    done = registered.run("check")
    assert done.returncode == 1
    text = done.stdout.decode()
    assert re.search("failed +VMs +1 of 2", text) and "warning  mediator" in text
    registered.db.write_bytes(b"garbage" * 100)
    assert re.search("failed +registry", registered.run("check").stdout.decode())


def test_backup(registered):
    target = registered.path / "copy.db"
    registered.ok("backup", target)
    assert Host.json(registered, "--db", target, "list-vms")["vms"][1]["vm_name"] == "db"
    before = target.read_bytes()
    assert "not overwritten" in registered.fails(1, "backup", target)
    assert target.read_bytes() == before
    name = registered.json("backup")["backup"]
    assert name.startswith(str(registered.db)) and pathlib.Path(name).exists()
    assert "directory" in registered.fails(1, "backup", "/nonexistent/x")


@pytest.mark.parametrize("arguments", [["backup", "copy.db"], ["backup"], ["export"],
                                       ["export", "all.json"]])
def test_no_copy_of_what_is_not_there(host, arguments):
    """A mistyped --db must not look like an empty registry that was saved."""
    said = host.fails(1, *arguments, cwd=host.path)
    assert str(host.db) in said and "check the path" in said
    assert [entry.name for entry in host.path.iterdir()] == ["bin"]


def test_export_import(registered, tmp_path):
    registered.ok("set-rate-limit", "--all", "--rate=0.3", "--burst=2")
    registered.ok("quarantine-vm", f"--vm-uuid={UUID2}", "--reason=r")
    registered.ok("set-timeout", "--pool=B", "--timeout=77")
    target = tmp_path / "all.json"
    registered.ok("export", target)
    assert json.loads(target.read_text()) == json.loads(registered.ok("export"))
    registered.fails(1, "export", target)

    other = ["--db", tmp_path / "other.db"]
    assert registered.json(*other, "import", target)["imported"] == 2

    def stable(text):
        data = json.loads(text)
        for vm in data["vms"]:
            del vm["created_at"], vm["updated_at"]
        return data

    assert stable(registered.ok(*other, "export")) == stable(target.read_text())
    # Again: changes, no second copies; and from stdin.
    registered.ok("import", "-", input=target.read_bytes())
    assert len(registered.json("list-vms")["vms"]) == 2


def test_an_unchanged_import_forgives_nothing(registered, tmp_path):
    target = tmp_path / "all.json"
    registered.sql("INSERT INTO faults (vm_uuid, at, kind, points) VALUES (?, 1, 'timeout', 3)",
                   UUID1)
    registered.ok("export", target)
    registered.ok("import", target)
    assert [fault["points"] for fault in registered.vm()["faults"]] == [3]
    # An import that takes a quarantine away is another matter.
    registered.ok("quarantine-vm", f"--vm-uuid={UUID1}")
    registered.ok("import", target)
    assert not registered.vm()["quarantined"]
    assert [fault["points"] for fault in registered.vm()["faults"]] == [0, 0, 0]
    assert [fault["kind"] for fault in registered.vm()["faults"]][1:] == ["quarantined", "cleared"]


def test_an_import_may_change_numbers_round(registered, tmp_path):
    data = json.loads(registered.ok("export"))
    registered.ok("register-vm", f"--vm-uuid={UUID3}", "--name=x", "--vm-id=3")
    data["vms"].append({"vm_uuid": UUID3})
    for vm, number in zip(data["vms"], (2, 3, 1)):
        vm["vm_id"] = number
    (tmp_path / "all.json").write_text(json.dumps(data))
    registered.ok("import", tmp_path / "all.json")
    ids = {vm["vm_uuid"]: vm["vm_id"] for vm in registered.json("list-vms")["vms"]}
    assert ids == {UUID1: 2, UUID2: 3, UUID3: 1}
    # One that is not named keeps its own, and nobody else gets it.
    data["vms"] = [{"vm_uuid": UUID1, "vm_id": 1}]
    (tmp_path / "all.json").write_text(json.dumps(data))
    assert UUID3 in registered.fails(1, "import", tmp_path / "all.json")
    assert registered.vm()["vm_id"] == 2


@pytest.mark.parametrize("change,status,said", [
    (lambda d: d["vms"][0].update(weight=1.005), 2, "weight is out of range"),
    (lambda d: d["vms"][0].update(weight="2"), 2, "weight is out of range"),
    (lambda d: d["vms"][0].update(vm_uuid="x"), 2, "no vm_uuid"),
    (lambda d: d["vms"][0].update(vm_id=-1), 2, "vm_id"),
    (lambda d: d["vms"][0].update(vm_id=2), 1, "belongs to VM"),
    (lambda d: d["vms"][0].update(pool="C"), 2, "pool"),
    (lambda d: d["vms"][0].update(priority=1), 2, "priority"),
    (lambda d: d["vms"][0].update(allow_cubin=1), 2, "allow_cubin"),
    (lambda d: d["vms"][0].update(vm_name=1), 2, "vm_name"),
    (lambda d: d["pools"][0].update(job_timeout_ms=1), 2, "timeout 1 is out of range"),
    (lambda d: d["pools"][0].update(enabled=1), 2, "enabled"),
    (lambda d: d.update(vms={}), 2, "arrays"),
    (lambda d: d.update(version=4), 1, "no export of version 3"),
])
def test_imports_are_whole_or_nothing(registered, tmp_path, change, status, said):
    data = json.loads(registered.ok("export"))
    data["vms"][1]["vm_name"] = "must not arrive"
    change(data)
    (tmp_path / "bad.json").write_text(json.dumps(data))
    assert said in registered.fails(status, "import", tmp_path / "bad.json")
    assert registered.vm(UUID2)["vm_name"] == "db"


def test_imports_that_are_no_json(registered, tmp_path):
    (tmp_path / "bad.json").write_text('{"version": 3,')
    assert "line 1" in registered.fails(1, "import", tmp_path / "bad.json")
    registered.fails(1, "import", tmp_path / "none.json")


# ---- against the real mediator ----

def test_the_real_mediator(host, new_mediator):
    """What the tables above say that the mediator answers, it answers."""
    served = new_mediator("real").start()
    host.db, host.socket = served.database, served.admin_path
    host.ok("register-vm", f"--vm-uuid={UUID1}", "--name=web", "--rate=5")
    answer = host.json("status")
    assert answer["mediator"]["running"] and answer["database"]["ok"]
    vm, = [vm for vm in answer["vms"] if vm["vm_uuid"] == UUID1]
    # Beyond what a plain VM lacks, every column has something to show.
    assert set(LIVE_VM) <= set(vm)
    assert set(LIVE_WEIGHTS) <= set(host.json("show-weights")["vms"][0])
    for command in ("status", "show-connections", "list-jobs", "list-workers", "show-health",
                    "show-metrics", "show-weights"):
        assert host.ok(command)
    text = host.ok("metrics", "--prometheus")
    assert "vgpu_vm_rate_limit" in text
    # What the daemon itself takes: of each event in the core, and of its loop.
    for name in ("vgpu_scheduler_decision_seconds", "vgpu_event_loop_lag_seconds"):
        rows = re.findall(rf'^{name}_bucket{{le="(.*)"}} (\d+)$', text, re.M)
        assert [bound for bound, _ in rows][-1] == "+Inf" and len(rows) <= 16
        assert [int(count) for _, count in rows] == sorted(int(count) for _, count in rows)
        assert re.search(rf"^{name}_count {rows[-1][1]}$", text, re.M)
        assert float(re.search(rf"^{name}_sum (.*)$", text, re.M).group(1)) >= 0
    assert "quantum_us" in host.json("show-config")
    assert host.json("set-weight", f"--vm-uuid={UUID1}", "--weight=7")["mediator"] == "reloaded"
    weight, = [vm["weight"] for vm in host.json("status")["vms"] if vm["vm_uuid"] == UUID1]
    assert weight == 7.0
    host.ok("reload-config")
    assert "no job 123456789" in host.fails(1, "cancel-job", "--job=123456789")
    host.ok("remove-vm", f"--vm-uuid={UUID1}")
    assert UUID1 not in host.ok("status")


def test_one_bad_name_everywhere_the_same(host, new_mediator):
    """Bytes that are no UTF-8 spoil neither an answer nor the metrics of all the others."""
    served = new_mediator("real").start()
    host.db, host.socket = served.database, served.admin_path
    host.run("register-vm", f"--vm-uuid={UUID1}", b"--name=a\xffb\xe2\x82", check=True)
    name = "a\ufffdb\ufffd\ufffd"
    for command, key in (("list-vms", "vms"), ("status", "vms"), ("show-metrics", "vms")):
        assert [vm["vm_name"] for vm in host.json(command)[key]] == [name]
    assert f'vm="{name}"' in host.ok("metrics", "--prometheus")

# SPDX-License-Identifier: MIT
"""vgpu-admin from the outside: every command and every exit status, with the registry alone."""

import json
import re
import subprocess

import pytest

from admin_host import UUID1, UUID2, UUID3
from paths import ADMIN

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


@pytest.mark.parametrize("arguments,said", [
    (["--json"], "which command"), (["--json", "nonsense"], 'no command "nonsense"'),
    (["--nonsense", "--json"], "--nonsense is no option"),
    (["list-vms", "--nonsense=1", "-x", "--json"], "--nonsense=1 is no option of list-vms"),
    (["list-vms", "-x", "--json"], "-x is no option of list-vms"),
    (["--json", "set-weight", "--all", "--weight"], "--weight needs a value"),
    (["--json", "set-weight", "--all=1"], "--all takes no value"),
    (["--json", "set-rate-limit", "--all"], "one of --rate, --burst, --queue-depth, --gpu-seconds"),
    (["--json", "show-vm", "surplus"], 'takes no argument "surplus"')])
def test_usage_errors_are_json_too(host, arguments, said):
    done = host.run(*arguments)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["exit_status"] == 2 and said in error["message"]
    assert said in done.stderr.decode()


def test_help_is_json_too(host):
    told = {command["name"]: command for command in host.json("help")["commands"]}
    assert list(told) == commands()
    assert told["set-weight"] == host.json("help", "set-weight")
    assert {"name": "weight", "argument": "W", "help": "its share of the GPU, 1.00 to 100.00"} in \
        told["set-weight"]["options"]


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
    # What was not done is not told, either.
    assert registered.fails(1, "register-vm", f"--vm-uuid={UUID1}").count("registered") == 1
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
    assert str(host.db) in host.fails(3, "show-vm", f"--vm-uuid={UUID1}").splitlines()[-1]
    for command in ("list-vms",), ("set-enabled", "--pool=A", "--enabled=no"):
        assert "is empty" in host.fails(1, "--db=", *command)
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


@pytest.mark.parametrize("bad", ["'abc'", 2.5, "x'00'"])
def test_a_bad_number_keeps_no_vm_from_being_registered(registered, bad):
    registered.sql(f"UPDATE vms SET vm_id = {bad} WHERE vm_id = 1")
    assert registered.json("register-vm", f"--vm-uuid={UUID3}", "--name=x")["vm_id"] == 3
    registered.ok("set-vm-id", f"--vm-uuid={UUID1}", "--vm-id=1")
    assert registered.vm()["problem"] is None


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

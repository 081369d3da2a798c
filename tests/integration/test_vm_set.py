# SPDX-License-Identifier: MIT
"""What can be set for a VM, wherever it is set: command line, admin socket, registry and
scenarios of the simulator take the same values and refuse the same, with the same words.
And vm-set, which does it over the socket."""

import json
import re
import sqlite3
import subprocess

import pytest

import mediator as harness
from paths import ADMIN, SIM

WEIGHT = "1.00 to 100.00"
RATE = "0 (no limit) or 0.001 to 1000000 jobs per second"
BURST = "0 (one second's worth) or 1 to 1000000 jobs"
DEPTH = "0 (no limit) or 1 to 65536 jobs"
GPU_SECONDS = "0 (no limit) or 0.001 to 1 GPU second per second"
TIMEOUT = "0 (default) or 10 to 86400000 ms"
MEMORY = "0 (no quota) or 1 to 1048576 MiB"

# Of each setting: param of vm-set, command and option, column, range.
SETTINGS = {
    "weight": ("set-weight", "--weight", "weight", WEIGHT),
    "rate": ("set-rate-limit", "--rate", "max_jobs_per_sec", RATE),
    "burst": ("set-rate-limit", "--burst", "burst", BURST),
    "queue_depth": ("set-rate-limit", "--queue-depth", "max_queue_depth", DEPTH),
    "gpu_seconds": ("set-rate-limit", "--gpu-seconds", "gpu_seconds_per_sec", GPU_SECONDS),
    "timeout_ms": ("set-timeout", "--timeout", "job_timeout_ms", TIMEOUT),
    "memory_quota_mib": ("set-memory-quota", "--memory-quota", "memory_quota_mib", MEMORY),
}
NONSENSE = ["nan", "inf", "-inf", "-1", "1e999", "", " ", "5x", "2 x", "1,5", "0x10", "1e1"]
WRONG = {
    "weight": ["0", "0.9", "0.99", "100.01", "100.1", "1.005", *NONSENSE],
    "rate": ["0.0001", "1000000.1", *NONSENSE],
    "burst": ["1000001", "1.5", *NONSENSE],
    "queue_depth": ["65537", "1.5", *NONSENSE],
    "gpu_seconds": ["0.0001", "1.001", "100.1", *NONSENSE],
    "timeout_ms": ["9", "86400001", *NONSENSE],
    "memory_quota_mib": ["1048577", "1.5", *NONSENSE],
}
RIGHT = {
    "weight": ["1", "2.5", "100"],
    "rate": ["0", "0.001", "12.5", "1000000"],
    "burst": ["0", "1", "1000000"],
    "queue_depth": ["0", "1", "65536"],
    "gpu_seconds": ["0", "0.001", "1"],
    "timeout_ms": ["0", "10", "86400000"],
    "memory_quota_mib": ["0", "1", "1048576"],
}


def admin(mediator, *arguments):
    return subprocess.run(
        [ADMIN, "--db", mediator.database, "--admin-socket", mediator.admin_path, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
    )


def row(mediator, uuid):
    done = admin(mediator, "--json", "show-vm", f"--vm-uuid={uuid}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_number(text):
    """What JSON or a column would hold for that text, if it is a plain number."""
    return float(text) if re.fullmatch(r"-?[0-9.]+", text) else None


def refused_by_the_command(mediator, uuid, name, text):
    command, option, _, allowed = SETTINGS[name]
    done = admin(mediator, command, f"--vm-uuid={uuid}", f"{option}={text}")
    assert done.returncode == 2, (name, text)
    assert f"{option}={text}" in done.stderr.decode() and allowed in done.stderr.decode()


def refused_by_the_socket(mediator, uuid, name, value):
    with pytest.raises(harness.Refusal) as refusal:
        mediator.call("vm-set", vm_uuid=uuid, **{name: value})
    assert refusal.value.code == -32602
    assert f"{name} = " in str(refusal.value) and SETTINGS[name][3] in str(refusal.value)


def refused_in_the_registry(mediator, uuid, name, value):
    """It can be written there by hand; then the VM is not served, and all say why."""
    column, allowed = SETTINGS[name][2:]
    with mediator.registry() as registry:
        registry.execute(f"UPDATE vms SET {column} = ? WHERE vm_uuid = ?", (value, uuid))
    problem = row(mediator, uuid)["problem"]
    assert f"{column} is " in problem and allowed in problem
    assert any(problem in line for line in mediator.reload()["errors"])


def refused_in_a_scenario(mediator, name, text):
    option, allowed = SETTINGS[name][1].lstrip("-"), SETTINGS[name][3]
    path = mediator.directory / "scenario.ini"
    path.write_text(f"duration-ms = 10\n[vm]\nload = backlogged\nlength-us = 100\n{option} = {text}\n")
    done = subprocess.run([SIM, path], capture_output=True, timeout=60, check=False)
    assert done.returncode != 0, (name, text)
    assert allowed in (done.stderr + done.stdout).decode()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_is_refused_everywhere(mediator, name):
    uuid = mediator.add_vm()
    before = row(mediator, uuid)
    for text in WRONG[name]:
        refused_by_the_command(mediator, uuid, name, text)
        refused_by_the_socket(mediator, uuid, name, text)
        if as_number(text) is not None:
            refused_by_the_socket(mediator, uuid, name, as_number(text))
        refused_in_a_scenario(mediator, name, text)
    for value in (True, None, [], {}):
        refused_by_the_socket(mediator, uuid, name, value)
    assert row(mediator, uuid) == before
    for text in WRONG[name]:
        number = as_number(text)
        if text != "1e1":  # SQLite makes 10 of that
            refused_in_the_registry(mediator, uuid, name, text if number is None else number)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_is_taken_everywhere(mediator, name):
    uuid = mediator.add_vm()
    command, option, column, _ = SETTINGS[name]
    for text in RIGHT[name]:
        mediator.call("vm-set", vm_uuid=uuid, **{name: text})
        assert row(mediator, uuid)[column] == float(text)
        assert admin(mediator, command, f"--vm-uuid={uuid}", f"{option}={text}").returncode == 0
        mediator.call("vm-set", vm_uuid=uuid, **{name: as_number(text)})
        assert row(mediator, uuid)[column] == float(text)


def test_the_same_priorities_are_refused_everywhere(mediator):
    """Words; the registry has numbers for them, and takes no other."""
    uuid = mediator.add_vm()
    before = row(mediator, uuid)
    for text in ["", "urgent", "High", "highest", "high low", "1", "-1", "0.9", "nan"]:
        done = admin(mediator, "set-priority", f"--vm-uuid={uuid}", f"--priority={text}")
        assert done.returncode == 2 and b"low, medium or high" in done.stderr, text
        with pytest.raises(harness.Refusal, match='"low", "medium" or "high"'):
            mediator.call("vm-set", vm_uuid=uuid, priority=text)
        path = mediator.directory / "scenario.ini"
        path.write_text(f"[vm]\npriority = {text}\n")
        done = subprocess.run([SIM, path], capture_output=True, timeout=60, check=False)
        assert done.returncode == 1 and b"low, medium or high" in done.stderr, text
    with pytest.raises(harness.Refusal, match='"low", "medium" or "high"'):
        mediator.call("vm-set", vm_uuid=uuid, priority=1)
    assert row(mediator, uuid) == before
    for value in (3, -1, 0.9, "urgent", "", 1e999, "1 x"):
        with pytest.raises(sqlite3.IntegrityError), mediator.registry() as registry:
            registry.execute("UPDATE vms SET priority = ? WHERE vm_uuid = ?", (value, uuid))


def test_numbers_that_json_cannot_hold(mediator):
    """Not even the line is read: the answer says what is wrong with it."""
    uuid = mediator.add_vm()
    for text, said in (("1e999", "overflow"), ("NaN", "invalid token"), ("01", "not JSON")):
        with mediator.connect_admin() as sock:
            sock.sendall(
                b'{"id":1,"method":"vm-set","params":{"vm_uuid":"%s","weight":%s}}\n'
                % (uuid.encode(), text.encode())
            )
            error = json.loads(sock.makefile().readline())["error"]
        assert error["code"] == -32700 and said in error["message"]
    assert row(mediator, uuid)["weight"] == 1.0


def test_vm_set(mediator):
    """Several at once, in force and in the registry when the answer is there."""
    uuid, other = mediator.add_vms(1, 2)
    answer = mediator.call(
        "vm-set",
        vm_uuid=uuid.upper(),
        weight=2.5,
        priority="high",
        pool="B",
        rate=0.5,
        burst=3,
        queue_depth=7,
        gpu_seconds="0.25",
        timeout_ms=500,
        memory_quota_mib=64,
    )
    assert answer["errors"] == [] and re.search("vm1.*changed", answer["changed"][0])
    vm = row(mediator, uuid)
    assert {key: vm[key] for key in ("weight", "priority", "pool", "max_jobs_per_sec", "burst",
                                     "max_queue_depth", "gpu_seconds_per_sec", "job_timeout_ms",
                                     "memory_quota_mib")} == {
        "weight": 2.5, "priority": "high", "pool": "B", "max_jobs_per_sec": 0.5, "burst": 3,
        "max_queue_depth": 7, "gpu_seconds_per_sec": 0.25, "job_timeout_ms": 500,
        "memory_quota_mib": 64}
    served = mediator.vm_status(uuid)
    assert (served["weight"], served["priority"], served["pool"]) == (2.5, "high", "B")
    assert row(mediator, other)["weight"] == 1.0
    # Nothing is left of a change of which a part is wrong.
    for wrong, said in (({"weight": 3, "rate": -1}, "rate = -1"), ({"wieght": 3}, "wieght"),
                        ({"priority": "urgent"}, "medium"), ({"pool": "C"}, '"A" or "B"'),
                        ({}, "nothing is to be set")):
        with pytest.raises(harness.Refusal, match=said) as refusal:
            mediator.call("vm-set", vm_uuid=uuid, **wrong)
        assert refusal.value.code == -32602
    assert row(mediator, uuid) == vm
    with pytest.raises(harness.Refusal, match="vm_uuid"):
        mediator.call("vm-set", weight=3)
    with pytest.raises(harness.Refusal, match="no VM nobody") as refusal:
        mediator.call("vm-set", vm_uuid="nobody", weight=3)
    assert refusal.value.code == 1
    # The registry is well all the while.
    assert mediator.status()["database"]["ok"] and "registry: no VM" not in mediator.log()


def test_vm_set_repairs(mediator):
    """A VM that is not served for a bad value is, once the value is set."""
    uuid = mediator.insert_vm(1, weight=1.005)
    assert mediator.reload()["errors"] and mediator.vm_status(uuid) is None
    mediator.call("vm-set", vm_uuid=uuid, weight=3)
    assert mediator.vm_status(uuid)["weight"] == 3.0


def test_vm_set_on_a_registry_that_cannot_be_written(mediator):
    uuid = mediator.add_vm()
    holder = mediator.registry()
    with holder as registry:
        registry.execute("BEGIN IMMEDIATE")
        with pytest.raises(harness.Refusal, match="another process holds it"):
            mediator.call("vm-set", vm_uuid=uuid, weight=3)
    assert mediator.vm_status(uuid)["weight"] == 1.0
    mediator.call("vm-set", vm_uuid=uuid, weight=3)
    assert mediator.vm_status(uuid)["weight"] == 3.0

# SPDX-License-Identifier: MIT
"""The registry as a whole: backup, export, import."""

import json
import pathlib

import pytest

from admin_host import UUID1, UUID2, UUID3


def test_backup(registered):
    target = registered.path / "copy.db"
    registered.ok("backup", target)
    assert registered.json("--db", target, "list-vms")["vms"][1]["vm_name"] == "db"
    before = target.read_bytes()
    assert "not overwritten" in registered.fails(1, "backup", target)
    assert target.read_bytes() == before
    name = registered.json("backup")["backup"]
    assert name.startswith(str(registered.db)) and pathlib.Path(name).exists()
    assert "directory" in registered.fails(1, "backup", "/nonexistent/x")


def test_a_backup_takes_no_other_file_away(registered, tmp_path):
    """What it writes first is beside it, under a name that may be somebody's."""
    part = tmp_path / "copy.db.part"
    part.write_text("mine")
    assert f"{part} exists" in registered.fails(1, "backup", tmp_path / "copy.db")
    assert part.read_text() == "mine" and not (tmp_path / "copy.db").exists()
    part.unlink()
    registered.ok("backup", tmp_path / "copy.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy.db"]


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
    (lambda d: d["vms"][0].update(quarantined=1), 2, "quarantined is neither true nor false"),
    (lambda d: d["vms"][0].update(quarantine_reason=1), 2, "quarantine_reason is no text"),
    (lambda d: d["vms"][0].update(quarantined_by=[]), 2, "quarantined_by is no text"),
    (lambda d: d["vms"][0].update(quarantined_at="x"), 2, "quarantined_at is no whole number"),
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


def test_a_bad_value_of_a_pool_is_not_exported_as_its_default(registered):
    registered.sql("UPDATE pools SET job_timeout_ms = 3 WHERE pool_id = 'A'")
    done = registered.run("export")
    assert done.returncode == 1 and b"not exported: pool A: job_timeout_ms is 3" in done.stderr
    data = json.loads(done.stdout)
    assert [pool["pool"] for pool in data["pools"]] == ["B"] and len(data["vms"]) == 2


def test_imports_that_are_no_json(registered, tmp_path):
    (tmp_path / "bad.json").write_text('{"version": 3,')
    assert "line 1" in registered.fails(1, "import", tmp_path / "bad.json")
    registered.fails(1, "import", tmp_path / "none.json")

# SPDX-License-Identifier: MIT
"""vgpu-admin and the toolstack: names go through xe, whatever they hold and however it behaves."""

import json
import pathlib
import signal

import pytest

import mediator as harness
from admin_host import UUID1, UUID2, UUID3


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
    error = json.loads(registered.run("--json", "show-vm", "--vm-name=twin").stdout)["error"]
    assert UUID1 in error["message"] and UUID3 in error["message"]
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


def test_nothing_is_left_of_an_xe_that_hangs(registered):
    registered.xe([], "hang-child")
    # So long that it has come to have a child, however slow the machine is.
    for seconds in (0.5, 5, 50):
        registered.run(f"--xe-timeout={seconds}", "show-vm", "--vm-name=web")
        if (registered.bin / "child").exists():
            break
    child = int((registered.bin / "child").read_text())
    harness.wait_for(lambda: not is_alive(child), "the end of xe's child")


def is_alive(pid):
    """A zombie is not: whoever adopts it decides how long it stays one."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


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

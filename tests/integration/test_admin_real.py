# SPDX-License-Identifier: MIT
"""vgpu-admin against the real mediator."""

import re
import time

import mediator as harness
import wire
from admin_host import LIVE_VM, LIVE_WEIGHTS, UUID1
from paths import ADMIN


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
    rows = host.checked(status=0)
    assert rows["worker"] == ("ok", f"{ADMIN.parent / 'vgpu-worker'} is there")
    assert rows["sockets"] == ("ok", f"{served.sockets} is there")
    assert rows["registry"][0] == rows["mediator"][0] == "ok"
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
    host.ok("update-vm", f"--vm-uuid={UUID1}", "--name=a\u009b31mb\x7f\x1b[1m\u00e9")
    assert 'vm="a31mb[1m\u00e9"' in host.ok("metrics", "--prometheus")


def test_what_happened_to_a_vm(host, new_mediator):
    """Its faults and orders, and how it is now, for people and for programs."""
    served = new_mediator("real").start(job_timeout_ms=100, quarantine_threshold=1000)
    host.db, host.socket = served.database, served.admin_path
    host.ok("register-vm", f"--vm-uuid={UUID1}", "--name=web")
    device = served.connect(UUID1)
    began = int(time.time())
    assert device.call(wire.OP_HANG).code == wire.TIMEOUT
    assert device.call(wire.OP_CUDA_KERNEL, [1, 2]).code == wire.OK
    who = f"--vm-uuid={UUID1}"
    host.ok("quarantine-vm", who, "--reason=runs a miner", env={"SUDO_USER": "alice"})
    host.ok("clear-quarantine", who, "--reason=did not", env={"SUDO_USER": "bob"})
    harness.wait_for(lambda: len(host.json("show-vm", who)["faults"]) == 4, "all four")
    vm = host.json("show-vm", who)
    rows = [tuple(fault[key] for key in ("kind", "points", "detail", "by")) for fault in vm["faults"]]
    assert rows == [("timeout", 0, "limit 100 ms", None), ("recovered", 0, None, None),
                    ("quarantined", 0, "runs a miner", "alice"), ("cleared", 0, "did not", "bob")]
    assert all(began <= fault["at"] <= time.time() for fault in vm["faults"])
    assert (vm["now"]["worker"], vm["now"]["gpu"], vm["now"]["fault_points"]) == ("ready", 0, 0)
    text = host.ok("show-vm", who)
    for line in (r"Fault points +0", r"Worker +ready", r"Faults +1",
                 r"[-\d]+ [:\d]+ [+\d]+ +timeout +0 +limit 100 ms +-",
                 r"[-\d]+ [:\d]+ [+\d]+ +quarantined +0 +runs a miner +alice",
                 r"[-\d]+ [:\d]+ [+\d]+ +cleared +0 +did not +bob"):
        assert re.search(f"^{line}$", text, re.M), (line, text)
    assert max(map(len, text.splitlines())) <= 120
    served.stop()
    assert host.json("show-vm", who)["now"] is None
    assert "Now:" not in host.ok("show-vm", who)

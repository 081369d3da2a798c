# SPDX-License-Identifier: MIT
"""What tests of vgpu-admin share: a place with a registry, an xe that they write, and a
mediator's socket that answers what they say."""

import json
import socket
import sqlite3
import subprocess
import threading

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
    child = os.fork()
    if child == 0:
        time.sleep(600)
    open(here + "/child", "w").write(str(child))
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

    def checked(self, *arguments, status):
        """Of each thing that check looks at: (result, detail)."""
        done = self.run(*arguments, "--json", "check")
        assert done.returncode == status, done.stdout
        rows = json.loads(done.stdout)["checks"]
        return {row["check"]: (row["result"], row["detail"]) for row in rows}

    def vm(self, uuid=UUID1):
        return self.json("show-vm", f"--vm-uuid={uuid}")

    def sql(self, text, *values):
        with sqlite3.connect(self.db) as db:
            rows = db.execute(text, values).fetchall()
        db.close()
        return rows


class FakeMediator:
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
                         "nvml": "up", "reasons": []}]},
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

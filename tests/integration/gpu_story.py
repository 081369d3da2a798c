# SPDX-License-Identifier: MIT
"""Stories of GPUs, told by the stand-in NVML and watched through the mediator.

The stand-in obeys lines that are appended to a script; the mediator polls it ten times a
second here. What is checked is what an operator sees and what jobs meet.
"""

import re
import stat
import subprocess

import mediator as harness
import wire
from paths import ADMIN

BUSY_GPU_RESET = 3
SETTINGS = {"backend": "cuda", "nvml_poll_ms": 100}
STATES = ("ok", "degraded", "unknown", "draining", "failed")
# Reasons that the log tells in other words: of people, workers and old resets; the beginning.
UNTOLD = ("by_hand", "worker_stuck", "reset_running", "no_readings")


class Story:
    """A mediator on stand-in GPUs, with one VM and its device."""

    def __init__(self, mediator, devices=1, libraries=harness.STANDIN, prefix=(), **settings):
        self.mediator = mediator
        self.script = mediator.directory / "script"
        self.script.touch()
        mediator.environment |= {
            "LD_LIBRARY_PATH": str(libraries),
            "VGPU_STANDIN_NVML_SCRIPT": str(self.script),
            "VGPU_STANDIN_DEVICES": str(devices),
        }
        self.settings = {**SETTINGS, **settings}
        mediator.start(prefix=prefix, **self.settings)
        self.vm = mediator.add_vm()
        self.device = mediator.connect(self.vm, hello=True)
        self.device.works()
        self.state_becomes("ok")

    def tell(self, *lines):
        with open(self.script, "a", encoding="utf-8") as script:
            script.write("\n".join(lines) + "\n")

    def kill_and_start(self):
        """kill -9, and a new mediator; the script begins anew with it."""
        self.mediator.kill()
        self.script.write_text("")
        self.mediator.start(**self.settings)
        self.device = self.mediator.connect(self.vm, hello=True)

    def gpu(self):
        return self.mediator.call("health")["gpus"][0]

    def codes(self):
        return [reason["code"] for reason in self.gpu()["reasons"]]

    def state_becomes(self, state):
        """And health, the log and the metrics agree on it."""
        harness.wait_for(lambda: self.told() == state, lambda: f"state {state}: {self.gpu()}")

    def told(self):
        """What health tells, unless the metrics tell another; its reasons are in the log."""
        gpu = self.gpu()
        states = {
            re.search('state="([a-z]+)"', line)[1]: int(line.rsplit(" ", 1)[1])
            for line in self.mediator.call("show-metrics")["text"].splitlines()
            if line.startswith("vgpu_gpu_health{") and gpu["uuid"] in line
        }
        if states != {state: int(state == gpu["health"]) for state in STATES}:
            return None
        log = self.mediator.log()
        for reason in gpu["reasons"]:
            if reason["code"] not in UNTOLD:
                level = "info" if reason["level"] == "ok" else "warning"
                line = f"{level}: GPU 0 ({gpu['uuid']}): {reason['message']}; {reason['remedy']}"
                assert line in log, f"not in the log: {line}"
        return gpu["health"]

    def says_over(self, message):
        """What was wrong is over, and the log says so, too."""
        self.mediator.says(f"info: GPU 0 ({self.gpu()['uuid']}): over: {message}")

    def xid_counted(self, number):
        """And told, and in the metrics."""
        harness.wait_for(lambda: self.gpu()["xids"].get(str(number)), f"Xid {number}")
        assert f"GPU 0: Xid {number}: " in self.mediator.log()
        uuid = self.gpu()["uuid"]
        line = f'vgpu_gpu_xid_errors_total{{gpu_uuid="{uuid}",xid="{number}"}} 1\n'
        assert line in self.mediator.call("show-metrics")["text"]

    def refused(self):
        answer = self.device.call(wire.OP_NOP)
        return answer.type == wire.MSG_BUSY and answer.words[0] == BUSY_GPU_RESET


def reset_command(directory, body):
    path = directory / "reset"
    path.write_text(f"#!/bin/sh\necho \"$@\" > {directory}/arguments\n{body}\n", encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def metric(mediator, name):
    for line in mediator.call("show-metrics")["text"].splitlines():
        if line.startswith(name):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no metric {name}")


def health_text(mediator):
    """As vgpu-admin health shows it."""
    done = subprocess.run([ADMIN, "--admin-socket", mediator.admin_path, "health"],
                          capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def recorded(mediator, *codes):
    """Waits until the registry has just these as what holds a GPU."""

    def rows():
        with mediator.registry() as registry:
            return {code for (code,) in registry.execute("SELECT code FROM gpu_holds")}

    harness.wait_for(lambda: rows() == set(codes), f"{codes} in the registry")

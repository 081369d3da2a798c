# SPDX-License-Identifier: MIT
"""A guest under QEMU, as an object that runs commands.

The guest is Debian's kernel with the initramfs of tools/initramfs, whose init serves
the second serial port: one line in is one command, and its output comes back between
markers that carry the command's own id. The first serial port is the kernel's console
and goes to a file, which is quoted when something goes wrong.

TCG only: /dev/kvm of a build machine may exist and hang.
"""
import base64
import json
import os
import pathlib
import re
import secrets
import select
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("VGPU_BUILD", ROOT / "build"))

BOOT_TIMEOUT_S = 120
COMMAND_BYTES_MAX = 2700  # a line must fit into the guest's tty


class GuestError(Exception):
    """The guest did not do what it was asked; the text holds the end of its console."""


class Guest:
    """
    directory: where sockets and logs go (its path must be short: sockets are in it)
    devices: values of -device, e.g. "vgpu-stub,vm_id=7,socket=/tmp/x.sock"
    """

    def __init__(self, directory, kernel, initramfs, devices=(), qemu=None, memory_mib=192,
                 arguments=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.console = self.directory / "console.log"
        self.qemu_log = self.directory / "qemu.log"
        self._control_path = self.directory / "control"
        self._qmp_path = self.directory / "qmp"
        self._process = None
        self._control = None
        self._qmp = None
        self._received = b""
        self._command = [
            str(qemu or BUILD / "bin" / "qemu-vgpu"),
            "-accel", "tcg", "-machine", "pc", "-m", str(memory_mib), "-nodefaults",
            "-no-user-config", "-display", "none",
            "-kernel", str(kernel), "-initrd", str(initramfs),
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable",
            "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=control,path={self._control_path},server=on,wait=off",
            "-serial", "chardev:control",
            "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
        ]
        for device in devices:
            self._command += ["-device", device]
        self._command += arguments

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Boots the guest and waits until it takes commands."""
        self.launch()
        self.wait_ready()

    def launch(self):
        """Starts QEMU without waiting for the guest."""
        with open(self.qemu_log, "wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log)
        self._qmp = self._connect(self._qmp_path).makefile("rw")
        self._qmp.readline()
        self.qmp("qmp_capabilities")
        self._control = self._connect(self._control_path)
        self._received = b""

    def wait_ready(self, timeout=BOOT_TIMEOUT_S):
        """Waits until the guest, booting or booting again, takes commands."""
        self._read_until(rb"VGPU-READY\r?\n", timeout)

    def run(self, command, timeout=30):
        """Runs a line of sh in the guest; returns (exit status, output)."""
        encoded = base64.b64encode(command.encode()).decode()
        if len(encoded) > COMMAND_BYTES_MAX:
            raise ValueError(f"a command of {len(command)} bytes is too long for the guest")
        run_id = secrets.token_hex(8)
        self._control.sendall(f"{run_id} {encoded}\n".encode())
        begin = f"VGPU-BEGIN {run_id}\n".encode()
        found = self._read_until(begin + rb"(?s:(.*))\nVGPU-END " + run_id.encode() + rb" (\d+)\n",
                                 timeout)
        return int(found.group(2)), found.group(1).decode(errors="replace")

    def check(self, command, timeout=30):
        """Like run(), but a failing command is an error; returns the output, stripped."""
        status, output = self.run(command, timeout)
        if status:
            raise GuestError(f"{command!r} ended with {status}: {output}")
        return output.strip()

    def reboot(self):
        """Reboots the guest from inside and waits until it takes commands again."""
        self._control.sendall(f"reboot {base64.b64encode(b'reboot -f').decode()}\n".encode())
        self.wait_ready()

    def reset(self):
        """Presses the reset button; the caller goes on with wait_ready()."""
        self._received = b""
        self.qmp("system_reset")

    def poweroff(self, timeout=30):
        """Powers the guest off and returns QEMU's exit status."""
        self._control.sendall(f"off {base64.b64encode(b'poweroff -f').decode()}\n".encode())
        status = self._process.wait(timeout)
        self._close()
        return status

    def kill(self):
        """Ends QEMU at once, if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()

    def qmp(self, command, **arguments):
        """Runs a QMP command and returns what it returns; an error is raised."""
        json.dump({"execute": command, "arguments": arguments}, self._qmp)
        self._qmp.flush()
        while True:
            line = self._qmp.readline()
            if not line:
                raise GuestError(self._report(f"QEMU went away during {command}"))
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise GuestError(f"{command}: {answer['error']['desc']}")

    @property
    def pid(self):
        return self._process.pid

    def _connect(self, path):
        deadline = time.monotonic() + 20
        while True:
            if self._process.poll() is not None:
                raise GuestError(self._report(f"QEMU ended with {self._process.returncode}"))
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(path))
                return sock
            except OSError:
                sock.close()
                if time.monotonic() > deadline:
                    raise GuestError(self._report(f"QEMU does not listen on {path}")) from None
                time.sleep(0.02)

    def _read_until(self, pattern, timeout):
        """Reads the control port until @pattern came; drops everything up to its end."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self._received)
            if found:
                self._received = self._received[found.end():]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._control], [], [], left)[0]:
                raise GuestError(self._report(f"no {pattern!r} within {timeout} s"))
            data = self._control.recv(65536)
            if not data:
                raise GuestError(self._report("the guest is gone"))
            self._received += data

    def _report(self, what):
        parts = [what, f"control port so far: {self._received[-500:]!r}"]
        for path in (self.qemu_log, self.console):
            if path.exists():
                parts.append(f"{path.name}: {path.read_text(errors='replace')[-1500:]}")
        return "\n".join(parts)

    def _close(self):
        for thing in (self._qmp, self._control):
            if thing:
                thing.close()
        self._qmp = self._control = None

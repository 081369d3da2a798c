# SPDX-License-Identifier: MIT
"""A mediator of one's own, for demonstrations and measurements.

It runs from a directory of programs (build/bin, or bin of a bundle) in a temporary
directory that holds its registry, its sockets and its log, so that it meets neither an
installed mediator nor another one of these. Everything ends and disappears when the
`with` block is left, by whatever way.

Only the standard library, since a bundle runs where nothing else is.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20


class HostError(Exception):
    """The mediator or vgpu-admin failed; the text says how."""


def vm_uuid(index):
    return f"00000000-0000-4000-8000-{index:012d}"


def terminate_on_signals():
    """SIGTERM and SIGHUP end the program as Ctrl-C does: through every `finally`. Ctrl-C
    does so even where a shell that runs us in the background has it ignored."""
    def stop(*_):
        raise KeyboardInterrupt
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


class Mediator:
    """
    programs: the directory with vgpu-mediator and the others
    backend: auto, cpu or cuda
    settings: further "key=value" texts
    wrapper: a command to run the mediator under, e.g. ["valgrind"]
    """

    def __init__(self, programs, backend="auto", settings=(), wrapper=()):
        self.programs = pathlib.Path(programs)
        self._backend = backend
        self._settings = settings
        self._wrapper = wrapper
        self._process = None
        self.directory = None

    def __enter__(self):
        # Short, since sockets lie in it.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="vgpu-"))
        try:
            self._start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *_):
        self._clean_up()

    def _start(self):
        command = [*self._wrapper, str(self.programs / "vgpu-mediator"),
                   "--config", "/dev/null", "--db", str(self.database),
                   "--listen-dir", str(self.directory / "vm"),
                   "--admin-socket", str(self.admin_socket), "--backend", self._backend]
        for setting in self._settings:
            command += ["--set", setting]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                             stdout=subprocess.PIPE, stderr=log)
        # It prints one line when it serves, and ends its output when it cannot.
        if self._process.stdout.readline() != b"ready\n":
            self._process.wait(READY_TIMEOUT_S)
            raise HostError(f"vgpu-mediator ended with {self._process.returncode}:\n"
                            + self.log_tail())

    def _clean_up(self):
        try:
            self.stop()
        finally:
            if self._process and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self):
        """Ends the mediator as a service manager would; returns its exit status."""
        if not self._process:
            return None
        if self._process.poll() is None:
            self._process.terminate()
        self._process.stdout.close()
        return self._process.wait(STOP_TIMEOUT_S)

    def restart(self):
        """Ends it and starts it again on the same registry and sockets."""
        self.stop()
        self._start()

    @property
    def database(self):
        return self.directory / "registry.db"

    @property
    def admin_socket(self):
        return self.directory / "admin.sock"

    @property
    def log(self):
        return self.directory / "mediator.log"

    @property
    def pid(self):
        return self._process.pid

    def log_tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def socket_of(self, uuid):
        return self.directory / "vm" / f"{uuid}.sock"

    def admin(self, *arguments):
        """Runs vgpu-admin and returns what it prints."""
        done = subprocess.run([str(self.programs / "vgpu-admin"), "--db", str(self.database),
                               "--admin-socket", str(self.admin_socket), *arguments],
                              capture_output=True, text=True)
        if done.returncode:
            raise HostError(f"vgpu-admin {arguments[0]} ended with {done.returncode}: "
                            + done.stderr.strip())
        return done.stdout

    def admin_json(self, *arguments):
        return json.loads(self.admin("--json", *arguments))

    def register(self, uuids, name="vm"):
        """Registers VMs named NAME-1 and so on; returns when all of their sockets are there."""
        for number, uuid in enumerate(uuids, 1):
            self.admin("register-vm", f"--vm-uuid={uuid}", f"--name={name}-{number}")
        self.wait_for_sockets(uuids)

    def wait_until(self, condition, what="what was waited for"):
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise HostError(f"{what} does not come:\n{self.log_tail()}")
            time.sleep(0.02)

    def wait_for_sockets(self, uuids):
        for uuid in uuids:
            self.wait_until(self.socket_of(uuid).exists, f"the socket of VM {uuid}")

    def workers(self):
        """Process ids of the workers."""
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def memory_kib(pid):
    """(RSS, PSS) of a process; PSS shares what several processes map."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    values = dict(line.split()[:2] for line in rollup.splitlines()[1:])
    return int(values["Rss:"]), int(values["Pss:"])


def describe_machine():
    """Processor and kernel, which go with every table."""
    cpu = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{cpu}, {os.cpu_count()} CPUs, Linux {os.uname().release}"

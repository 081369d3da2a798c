# SPDX-License-Identifier: MIT
"""What the tables of gpu_report.py are measured with.

A Rig knows where the programs are and what may be used up: it starts mediators with VMs
that a table describes, runs the same loads through a mediator (bench-gpu-load), straight
on the driver and under NVIDIA's MPS (bench-gpu-native), and ends whatever it started. Only
the standard library, since it runs where nothing else is.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

_HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parents[1] / "tools"))
import host  # noqa: E402

EXIT_NO_GPU = 77
START_S = 45     # longest start of all processes of a run
WORKER_S = 0.6   # usual start of one worker with its GPU context
OP_NOP, OP_SPIN, OP_FAULT, OP_HANG, OP_RESIDUE = 0x0000, 0x1000, 0x1001, 0x1002, 0x1004


class CaseError(Exception):
    """A case gives no figures; the text says why. The others go on."""


class NoMps(CaseError):
    """There is no MPS; the report says so once, at its head."""


def load_text(name, us=None, **keys):
    """One VM's load as the programs read it (tests/bench/gpu_pattern.h)."""
    if us is not None:
        keys["us"] = us
    return ",".join([f"name={name}", *(f"{key}={value}" for key, value in keys.items())])


def quantile(values, fraction):
    """Of an unsorted list; None when it is empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else None


class Result:
    """What a run of loads measured, by the VMs' names."""

    def __init__(self, data):
        self.seconds = data["seconds"]
        self.begun_ns = data["begun_ns"]
        self.vms = {vm["name"]: vm for vm in data["vms"]}
        self._before, self._after = (self._result(data[key]) for key in ("before", "after"))
        self.status_seconds = data["status_seconds"]

    @staticmethod
    def _result(answer):
        return answer["result"] if answer else None

    def _vm(self, status, name):
        return next(vm for vm in status["vms"] if vm["vm_name"] == name)

    def gain(self, name, key):
        """How much a figure of the mediator's status grew during the window."""
        return self._vm(self._after, name)[key] - self._vm(self._before, name)[key]

    def charged_s(self, name):
        return self.gain(name, "charged_s")

    def busy_ratio(self):
        """The part of the window that was charged to anyone."""
        gain = sum(gpu["busy_s"] for gpu in self._after["gpus"])
        gain -= sum(gpu["busy_s"] for gpu in self._before["gpus"])
        return gain / self.status_seconds

    def work_s(self, name):
        return self.vms[name]["work_us"] / 1e6

    def errors(self, name):
        """Jobs that ended otherwise than done or refused by a limit."""
        return sum(n for code, n in self.vms[name]["codes"].items() if code not in ("0", "10"))

    def charged_shares(self, names):
        return _shares({name: self.charged_s(name) for name in names})

    def work_shares(self, names):
        return _shares({name: self.work_s(name) for name in names})

    def samples(self, name, from_ms=0, to_ms=1e12):
        """Latencies in us of jobs that ended in that part of the window."""
        return [us for at_us, us in self.vms[name]["samples"] if from_ms <= at_us / 1e3 < to_ms]

    def work_rate(self, name, from_ms, to_ms):
        """Seconds of work done per second, in whole buckets of that part of the window."""
        buckets = self.vms[name]["bucket_work_us"]
        first, last = int(from_ms // 100) + 1, min(int(to_ms // 100), len(buckets))
        return sum(buckets[first:last]) / 1e5 / (last - first) if last > first else None

    def summary(self):
        """For the JSON report: without what only the tables' code looks at."""
        drop = ("samples", "bucket_done", "bucket_work_us", "failures")
        vms = [{k: v for k, v in vm.items() if k not in drop} for vm in self.vms.values()]
        return {"seconds": self.seconds, "vms": vms}


def _shares(amounts):
    total = sum(amounts.values())
    return {name: amount / total if total else 0.0 for name, amount in amounts.items()}


class Vm:
    """A registered VM: its name, UUID and socket."""

    def __init__(self, name, uuid, path):
        self.name, self.uuid, self.path = name, uuid, path


class Session:
    """A mediator that runs, with its VMs."""

    def __init__(self, rig, mediator):
        self.rig, self.mediator = rig, mediator
        self.vms = {}

    def add_vms(self, **options):
        """add_vms(name={"weight": 2, "timeout": 500}, ...): options of register-vm."""
        for name, settings in options.items():
            uuid = host.vm_uuid(len(self.vms) + 1)
            extra = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
            self.mediator.admin("register-vm", f"--vm-uuid={uuid}", f"--name={name}", *extra)
            self.vms[name] = Vm(name, uuid, self.mediator.socket_of(uuid))
        self.mediator.wait_for_sockets([vm.uuid for vm in self.vms.values()])

    def load(self, *loads, seconds, ramp=0.5, drain=0.5, during=None):
        """
        Runs loads, each (name, keys of load_text), and returns the Result. @during, called
        with the window's begin (ns) in a thread of its own, acts meanwhile.
        """
        seconds = self.rig.scaled(seconds)
        texts = [load_text(name, socket=self.vms[name].path, **keys) for name, keys in loads]
        command = ["bench-gpu-load", "--admin", self.mediator.admin_socket]
        return self.rig.run(command, texts, seconds, self.rig.ramp(ramp), drain, during=during)

    def registry(self, sql, *values):
        """Runs one statement on the registry; returns its rows."""
        with contextlib.closing(sqlite3.connect(self.mediator.database, timeout=10)) as database:
            with database:
                return database.execute(sql, values).fetchall()

    def admin(self, method):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.mediator.admin_socket))
            sock.sendall(json.dumps({"id": 1, "method": method}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                return json.loads(lines.readline())["result"]

    def status_of(self, name):
        return next(vm for vm in self.admin("status")["vms"] if vm["vm_name"] == name)

    def worker_pid(self, name):
        for worker in self.admin("list-workers")["workers"]:
            if worker.get("vm_name") == name:
                return worker["pid"]
        return None

    def idle(self, limit_s=20):
        """Waits until no job is left from the case before."""
        deadline = time.monotonic() + limit_s
        while self.admin("status")["queue_depth"]:
            if time.monotonic() > deadline:
                raise CaseError("jobs of the case before do not end")
            time.sleep(0.05)

    def caller(self, name):
        return Caller(self.vms[name].path)


class Caller:
    """Sends one request at a time to a VM's socket, as an old device does."""

    _HEADER = struct.Struct("<4IcBH")

    def __init__(self, path):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(300)
        self._sock.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sock.close()

    def _receive(self, length):
        data = b""
        while len(data) < length:
            part = self._sock.recv(length - len(data))
            if not part:
                raise CaseError("the mediator closed a connection")
            data += part
        return data

    def call(self, opcode, *params):
        """Returns (code, seconds)."""
        start = time.monotonic()
        code, _ = self.ask(opcode, *params)
        return code, time.monotonic() - start

    def ask(self, opcode, *params):
        """Returns (code, results)."""
        body = struct.pack(f"<{8 + len(params)}I", 0x00010000, opcode, 0, len(params), 0, 0, 0, 0,
                           *params)
        self._sock.sendall(self._HEADER.pack(0x56475055, 1, 0, 1, b"A", 1, len(body)) + body)
        length = self._HEADER.unpack(self._receive(20))[6]
        answer = self._receive(length)
        code, count = struct.unpack_from("<2I", answer, 4)
        return code, struct.unpack_from(f"<{count}I", answer, 32)


class Rig:
    def __init__(self, programs, backend, output, scale=1.0, budget_s=None, mps=True):
        self.programs = pathlib.Path(programs)
        self.backend, self.output, self.scale = backend, pathlib.Path(output), scale
        self.deadline = time.monotonic() + budget_s if budget_s else None
        self.raw = []  # summaries of all runs, for the JSON report
        self._mps_missing = None if mps and self.cuda else "left out" if self.cuda else "no GPU"
        # The cpu backend's device is the last processor; the load must not sit on it.
        self._cpus = sorted(os.sched_getaffinity(0))

    @property
    def cuda(self):
        return self.backend == "cuda"

    @property
    def device_cpu(self):
        return self._cpus[-1]

    def scaled(self, seconds):
        return max(0.5, seconds * self.scale)

    def ramp(self, seconds):
        """Shorter ramps go with shorter windows, longer ones are not needed."""
        return seconds * min(1.0, max(0.1, self.scale))

    def check_time(self, seconds):
        if self.deadline and time.monotonic() + seconds > self.deadline:
            raise CaseError("no time left")

    @contextlib.contextmanager
    def session(self, *settings, **vms):
        """A mediator of its own with these VMs; everything it logs is kept."""
        self.check_time(3 + WORKER_S * len(vms))
        overlap = [] if self.cuda else ["overlap_max=1"]
        with host.Mediator(self.programs, self.backend,
                           ["allow_test_ops=yes", "max_workers=128", *overlap,
                            *settings]) as mediator:
            session = Session(self, mediator)
            try:
                session.add_vms(**vms)
                yield session
            finally:
                with open(self.output / "mediator.log", "ab") as log:
                    log.write(f"---- {settings} {list(vms)}\n".encode())
                    log.write(mediator.log.read_bytes())

    def run(self, command, texts, seconds, ramp, drain, environment=None, during=None):
        """Runs a load program and returns its Result."""
        limit_s = START_S + ramp + seconds + drain + 10
        self.check_time(ramp + seconds + WORKER_S * len(texts))
        command = [str(self.programs / command[0]), *map(str, command[1:]), "--ramp", str(ramp),
                   "--seconds", str(seconds), "--drain", str(drain), *texts]
        others = self._cpus[:-1] or self._cpus

        def prepare():
            if not self.cuda and "--cpu" not in command:
                os.sched_setaffinity(0, others)

        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                       env={**os.environ, **(environment or {})},
                                       preexec_fn=prepare, start_new_session=True)
            try:
                output = self._follow(process, limit_s, during)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process.stdout.close()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
        if process.returncode == EXIT_NO_GPU:
            raise CaseError("no GPU answers")
        if not output:
            raise CaseError(f"{pathlib.Path(command[0]).name} ended with {process.returncode}: "
                            f"{said[-300:]}")
        result = Result(json.loads(output))
        self.raw.append({"command": [pathlib.Path(command[0]).name, *command[1:]],
                         **result.summary()})
        return result

    @staticmethod
    def _follow(process, limit_s, during):
        """The program's result, or "" when it ended without one."""
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
            if not line.startswith("begun "):
                process.wait()
                return ""
            helper = None
            if during:
                helper = threading.Thread(target=during, args=(int(line.split()[1]),), daemon=True)
                helper.start()
            output = process.stdout.readline()
            process.wait()
            if helper:
                helper.join(30)
            return output if process.returncode == 0 else ""
        finally:
            timer.cancel()

    def native(self, *loads, seconds, ramp=0.5, drain=0.3, environment=None):
        """The loads as plain processes on the driver (on the cpu backend: on one processor)."""
        command = ["bench-gpu-native", "--backend", self.backend]
        if not self.cuda:
            command += ["--cpu", self.device_cpu]
        texts = [load_text(name, **keys) for name, keys in loads]
        return self.run(command, texts, self.scaled(seconds), self.ramp(ramp), drain,
                        environment)

    def mps(self, *loads, **options):
        """The same under MPS, whose daemon is started and ended for this run."""
        if self._mps_missing:
            raise NoMps(self._mps_missing)
        with Mps() as mps:
            try:
                return self.native(*loads, environment=mps.environment, **options)
            except CaseError as error:
                raise CaseError(f"under MPS: {error} {mps.log_tail()}") from None

    def find_mps(self):
        """Tries MPS once; says "" or why it cannot be used."""
        if self._mps_missing is None:
            try:
                self.mps(("try", {"us": 100}), seconds=0.5)
            except (CaseError, OSError) as error:
                self._mps_missing = f"cannot be used here: {error}"
        return self._mps_missing or ""


class Mps:
    """NVIDIA's multi-process service with directories of its own."""

    def __enter__(self):
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="mps-"))
        self.environment = {"CUDA_MPS_PIPE_DIRECTORY": str(self._directory),
                            "CUDA_MPS_LOG_DIRECTORY": str(self._directory)}
        # Into a file: the daemon would keep a pipe open.
        said = self._directory / "start"
        try:
            with open(said, "wb") as output:
                started = subprocess.run(["nvidia-cuda-mps-control", "-d"], timeout=20,
                                         stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                         env={**os.environ, **self.environment})
            problem = started.returncode and (said.read_text(errors="replace") or "it failed")
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            self._clean_up()
            raise CaseError(f"nvidia-cuda-mps-control: {problem.strip()[:200]}")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["nvidia-cuda-mps-control"], input=b"quit -t 3\n", timeout=20,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env={**os.environ, **self.environment})
        self._clean_up()

    def _clean_up(self):
        """The daemons name their pipe directory in no argument: they are found by environment."""
        wanted = f"CUDA_MPS_PIPE_DIRECTORY={self._directory}".encode()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_tail(self):
        lines = []
        for path in self._directory.glob("*.log"):
            lines += path.read_text(errors="replace").splitlines()[-2:]
        return " | ".join(lines)[-300:]


# ---- Tables -----------------------------------------------------------------


class Table:
    """Rows for people, kept as text; what could not be measured says so."""

    def __init__(self, key, title, columns):
        self.key, self.title, self.columns = key, title, columns
        self.rows, self.notes = [], []

    def row(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def note(self, text):
        self.notes.append(text)

    def markdown(self):
        lines = [f"### {self.key}. {self.title}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines + [""] + [f"- {note}" for note in self.notes] + [""])

    def data(self):
        return {"table": self.key, "title": self.title, "columns": self.columns,
                "rows": self.rows, "notes": self.notes}


def attempt(table, what, measure):
    """What measure() returns, or None with a note in the table."""
    try:
        return measure()
    except NoMps:
        return None
    except (CaseError, host.HostError, OSError, subprocess.SubprocessError, ValueError,
            LookupError, ZeroDivisionError) as error:
        text = f"{what}: {' '.join(str(error).split())[:400] or type(error).__name__}"
        if text not in table.notes:
            table.note(text)
        return None


def percent(value, digits=1):
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def milliseconds(us, digits=2):
    return "–" if us is None else f"{us / 1e3:.{digits}f}"

# SPDX-License-Identifier: MIT
"""vgpu-mediator from outside: the real program with its real workers.

A Mediator lives in a directory of its own: registry, sockets, log. Tests put VMs into
the registry with plain SQL, as an operator's tool does, and connect as devices do.
Nothing here sleeps for luck: everything waits for what it needs and gives up, with
the log, when that does not come.
"""

import contextlib
import errno
import itertools
import json
import os
import pathlib
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import namedtuple

import wire
from paths import MEDIATOR, STANDIN, WORKER, has_sanitizer  # noqa: F401 (STANDIN, WORKER: for tests)

PROGRAM = MEDIATOR  # a test may put another in its place

# Stays until its input ends.
TRACER = """
import ctypes, sys
PTRACE_SEIZE = 0x4206
print(ctypes.CDLL(None).ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None), flush=True)
sys.stdin.read()
"""

LIMIT_S = 60  # for what must happen; never waited for when it does
LOG_TAIL_LINES = 60

# For builds with a sanitizer. What AddressSanitizer keeps of freed memory would look like a
# leak; reports go to files by process, since a worker that faults on purpose has one, too.
SANITIZERS = {
    # A library that a test preloads comes before the sanitizer, and may.
    "ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=1:abort_on_error=1:verify_asan_link_order=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=0",
}


def uuid_of(number):
    return f"00000000-0000-4000-8000-{number:012x}"


def wait_for(condition, what, limit_s=LIMIT_S):
    """Asks until the answer is true, and returns it. @what: a text, or gives one at the end."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"waited {limit_s} s in vain for: {text}")
        time.sleep(0.01)


def processes():
    """{pid: parent} of everything that runs."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            status = dict(
                line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if "\t" in line
            )
            if not status["State"].startswith("Z"):
                found[int(entry.name)] = int(status["PPid"])
    return found


def alive(pid):
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    return False


@contextlib.contextmanager
def unreapable(pid):
    """
    Makes of a process one that seems to survive SIGKILL, as one does that hangs in a driver:
    its tracer does not look at it, so that its parent cannot reap it.
    """
    tracer = subprocess.Popen(
        [sys.executable, "-c", TRACER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with tracer:
        assert tracer.stdout.readline() == b"0\n", "it cannot be traced"
        yield
        tracer.stdin.close()


def process_status(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return line.split(":", 1)[1].split()
    raise KeyError(key)


# ---- A device's connection --------------------------------------------------

# `code` is what the guest would see; `words` are the results of a response or the words
# of a BUSY.
Answer = namedtuple("Answer", "type id code words data payload")


def decode_answer(header, payload):
    if header.type == wire.MSG_RESPONSE:
        response = wire.decode_response(payload)
        return Answer(
            header.type, header.request_id, response.status, response.results, response.data, payload
        )
    codes = {wire.MSG_BUSY: wire.RATE_LIMITED, wire.MSG_QUARANTINED: wire.QUARANTINED}
    words = list(struct.unpack(f"<{len(payload) // 4}I", payload))
    return Answer(
        header.type, header.request_id, codes.get(header.type), words, b"", payload
    )


class Device:
    """One connection to a VM's socket. `vm_id` is what its messages claim."""

    def __init__(self, path, hello=False, vm_id=0):
        self.vm_id = vm_id
        self.ids = itertools.count(1)
        self.sock = socket.socket(socket.AF_UNIX)
        # Blocking, so that it waits for its turn when many connect at once.
        self.sock.connect(str(path))
        self.sock.settimeout(LIMIT_S)
        self.hello = None
        if hello:
            self.sock.sendall(wire.pack_hello())
            header, payload = self.receive()
            assert header.type == wire.MSG_HELLO
            self.hello = struct.unpack("<6I", payload)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, type_, payload=b"", id_=0):
        self.sock.sendall(wire.pack_socket(type_, payload, vm_id=self.vm_id, request_id=id_))

    def submit(self, opcode, params=(), data=b"", id_=None):
        """Sends a request and returns its id."""
        id_ = next(self.ids) if id_ is None else id_
        self.send(wire.MSG_REQUEST, wire.encode_request(opcode, params, data), id_)
        return id_

    def submit_all(self, requests):
        """Sends all of {id: (opcode, params, data)} in one piece."""
        self.sock.sendall(
            b"".join(
                wire.pack_socket(wire.MSG_REQUEST, wire.encode_request(*request), request_id=id_)
                for id_, request in requests.items()
            )
        )

    def receive(self):
        """The next message: (Header, payload)."""
        return wire.receive_socket(self.sock)

    def answer(self):
        return decode_answer(*self.receive())

    def answers(self, count):
        """The next @count answers by id; an id that is answered twice is an error."""
        found = {}
        for _ in range(count):
            answer = self.answer()
            assert answer.id not in found, f"request {answer.id} is answered twice"
            found[answer.id] = answer
        return found

    def call(self, opcode, params=(), data=b""):
        id_ = self.submit(opcode, params, data)
        answer = self.answer()
        assert answer.id == id_, (id_, answer)
        return answer

    def add(self, a, b):
        """a + b, computed by the worker."""
        answer = self.call(wire.OP_CUDA_KERNEL, [a, b])
        assert (answer.type, answer.code) == (wire.MSG_RESPONSE, wire.OK), answer
        return answer.words[0]

    def works(self):
        assert self.add(100, 200) == 300

    def ended(self):
        """Waits until the peer has closed; what still comes before is returned."""
        rest = bytearray()
        while True:
            try:
                part = self.sock.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return bytes(rest)
            rest += part

    def nothing_more(self):
        """What comes next is the answer to a ping: nothing lay there before it."""
        self.send(wire.MSG_PING, b"fence", id_=0x70696E67)
        header, payload = self.receive()
        assert (header.type, payload) == (wire.MSG_PONG, b"fence"), (header, payload)


# ---- The mediator -----------------------------------------------------------


class MediatorError(AssertionError):
    pass


class Refusal(Exception):
    """An error that a method of the admin socket answered."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]


class Mediator:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.database = self.directory / "v.db"
        self.sockets = self.directory / "vm"
        self.admin_path = self.directory / "admin.sock"
        self.log_path = self.directory / "log"
        self.process = None
        self.pids = []  # of all that were started
        self.environment = {}
        self.closing = contextlib.ExitStack()

    # ---- its life

    def command(self, arguments, settings):
        command = [str(PROGRAM), "--config", str(self.configuration())]
        command += ["--db", str(self.database), "--listen-dir", str(self.sockets)]
        command += ["--admin-socket", str(self.admin_path)]
        settings = {"backend": "cpu", "allow_test_ops": "yes", **settings}
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        return command + [str(a) for a in arguments]

    def configuration(self):
        """The configuration file, empty unless a test has written it."""
        path = self.directory / "mediator.conf"
        path.touch()
        return path

    def launch(self, *arguments, prefix=(), **settings):
        """Starts it and does not wait."""
        reports = f":log_path={self.directory}/sanitizer"
        sanitizers = {name: options + reports for name, options in SANITIZERS.items()}
        environment = {**os.environ, **sanitizers, **self.environment}
        environment.pop("JOURNAL_STREAM", None)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.command(arguments, settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        self.pids.append(self.process.pid)

    def start(self, *arguments, prefix=(), **settings):
        """Starts it and waits until it serves."""
        self.launch(*arguments, prefix=prefix, **settings)
        line = self.line()
        if line != b"ready\n":
            self.fail(f"it did not start: {line!r}, exit status {self.process.wait(LIMIT_S)}")
        return self

    def line(self):
        """The next line of its standard output; b"" when it has ended."""
        if not select.select([self.process.stdout], [], [], LIMIT_S)[0]:
            self.fail("it says nothing")
        return self.process.stdout.readline()

    def refuses_to_start(self, *arguments, prefix=(), status=1, **settings):
        """Expects that exit status without a `ready`; returns what it said."""
        before = len(self.log())
        self.launch(*arguments, prefix=prefix, **settings)
        line = self.line()
        if line:
            self.fail(f"it started: {line!r}")
        if self.wait() != status:
            self.fail(f"exit status {self.process.returncode}, not {status}")
        return self.log()[before:]

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def fail(self, what):
        tail = "\n".join(self.log().splitlines()[-LOG_TAIL_LINES:])
        raise MediatorError(f"{what}\n--- log of {self.directory}\n{tail}")

    def says(self, text):
        """Waits until the log has that text."""
        try:
            wait_for(lambda: text in self.log(), f"{text!r} in the log")
        except AssertionError as error:
            self.fail(str(error))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self):
        """Its exit status."""
        try:
            status = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.fail("it does not end")
        self.process.stdout.close()
        return status

    def stop(self):
        """Ends it as a service manager does."""
        self.signal(signal.SIGTERM)
        if self.wait() != 0:
            self.fail(f"SIGTERM gave exit status {self.process.returncode}")

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self):
        """The end of a test: whatever runs is ended, and must have been well until then."""
        self.closing.close()
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            self.wait()
        for pid in self.pids:
            report = self.directory / f"sanitizer.{pid}"
            if report.exists():
                self.fail(report.read_text(errors="replace"))
        if self.process and self.process.returncode < 0:
            if self.process.returncode != -signal.SIGKILL:
                self.fail(f"it died of signal {-self.process.returncode}")

    # ---- registry

    @contextlib.contextmanager
    def registry(self):
        """A connection to the registry: committed at the end, and closed."""
        connection = sqlite3.connect(self.database, timeout=LIMIT_S)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def insert_vm(self, number, **columns):
        """Puts VM @number into the registry and returns its UUID."""
        row = {
            "vm_id": number,
            "vm_uuid": uuid_of(number),
            "vm_name": f"vm{number}",
            "pool_id": "A",
            "priority": 1,
            **columns,
        }
        marks = ", ".join("?" * len(row))
        with self.registry() as registry:
            registry.execute(
                f"INSERT INTO vms ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
            )
        return row["vm_uuid"]

    def add_vms(self, *numbers, **columns):
        """Puts VMs into the registry and waits for their sockets; returns their UUIDs."""
        uuids = [self.insert_vm(number, **columns) for number in numbers]
        self.reload()
        for uuid in uuids:
            if not self.socket_of(uuid).exists():
                self.fail(f"VM {uuid} has no socket")
        return uuids

    def add_vm(self, number=1, **columns):
        return self.add_vms(number, **columns)[0]

    def set_vm(self, uuid, **columns):
        """Changes columns of a VM and waits until that is in force."""
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.registry() as registry:
            registry.execute(
                f"UPDATE vms SET {names} WHERE vm_uuid = ?", (*columns.values(), uuid)
            )
        return self.reload()

    def remove_vm(self, uuid):
        with self.registry() as registry:
            registry.execute("DELETE FROM vms WHERE vm_uuid = ?", (uuid,))
        return self.reload()

    # ---- admin socket

    def connect_admin(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT_S)
        sock.connect(str(self.admin_path))
        return sock

    def admin(self):
        """A connection to the admin socket, for whoever wants to send it anything."""
        return self.closing.enter_context(self.connect_admin())

    def call(self, method, **params):
        with self.connect_admin() as sock:
            request = {"id": 7, "method": method, "params": params}
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as lines:
                line = lines.readline()
        if not line:
            self.fail(f"the admin socket does not answer {method}")
        answer = json.loads(line)
        assert answer["id"] == 7
        if "error" in answer:
            raise Refusal(answer["error"])
        return answer["result"]

    def ping(self):
        """Returns when everything that had come before this has been handled once."""
        return self.call("ping")

    def reload(self):
        return self.call("reload")

    def status(self):
        return self.call("status")

    def vm_status(self, uuid):
        for vm in self.status()["vms"]:
            if vm["vm_uuid"] == uuid:
                return vm
        return None

    def workers(self):
        """Of every worker process: {"vm_uuid", "pid", "ready", ...}."""
        return self.call("list-workers")["workers"]

    def worker_pid(self, uuid):
        """Of the worker that takes that VM's jobs; waits for one."""

        def find():
            for worker in self.workers():
                if worker.get("vm_uuid") == uuid and worker["ready"] and worker["pid"]:
                    return worker["pid"]
            return None

        return wait_for(find, f"a worker of {uuid}")

    # ---- devices

    def socket_of(self, uuid):
        return self.sockets / f"{uuid}.sock"

    def connect(self, uuid, hello=False):
        """Connects as that VM's device; closed with the mediator."""
        return self.closing.enter_context(Device(self.socket_of(uuid), hello))

    def connect_raw(self, uuid):
        """A plain connection; where many wait to be accepted, after them."""
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            code = sock.connect_ex(str(self.socket_of(uuid)))
            if code == 0:
                return self.closing.enter_context(sock)
            sock.close()
            if code != errno.EAGAIN:
                raise OSError(code, os.strerror(code))
            self.ping()

    def connections(self, uuid):
        return sum(c["vm_uuid"] == uuid for c in self.call("show-connections")["connections"])

    # ---- what it holds

    def rss_kib(self):
        return int(process_status(self.process.pid, "VmRSS")[0])

    def assert_grown_less(self, before_kib, most_kib):
        """A build with a sanitizer needs several times the memory for the same."""
        grown_kib = self.rss_kib() - before_kib
        if has_sanitizer(PROGRAM):
            most_kib *= 8
        assert grown_kib < most_kib, f"it has grown by {grown_kib} KiB, not {most_kib} at most"

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


# ---- Someone who must not notice --------------------------------------------


class Neighbour:
    """A VM that runs job after job while something else goes on, and checks each."""

    def __init__(self, mediator, uuid):
        self.device = mediator.connect(uuid)
        self.device.works()
        self.jobs = 0
        self.failure = None
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            while not self.leaving.is_set():
                assert self.device.add(self.jobs, 0x10000) == self.jobs + 0x10000
                self.jobs += 1
        except BaseException as failure:  # pylint: disable=broad-except
            self.failure = failure

    def works(self):
        """Waits for a job that has begun by now."""
        seen = self.jobs
        wait_for(lambda: self.failure or self.jobs > seen + 1, "a job of the neighbour")
        assert self.failure is None, f"the neighbour: {self.failure!r}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        try:
            self.works()
        finally:
            self.leaving.set()
            self.thread.join(LIMIT_S)

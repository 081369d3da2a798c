# SPDX-License-Identifier: MIT
"""What the mediator records, vgpu-sim plays again: the same decisions, down to the last one."""

import json
import os
import re
import signal
import subprocess
import tempfile

import pytest

import mediator as harness
import wire
from paths import SIM

LIMIT_S = 120


def replay(path, status=0):
    """The JSON of vgpu-sim --replay, and what it said on standard error."""
    done = subprocess.run([SIM, "--json", "--replay", path], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout), done.stderr


def equal(path, end):
    """Plays a log that must be equal to its end."""
    figures, said = replay(path)
    assert (figures["problem"], said, figures["end"]) == (None, "", end)
    return figures


@pytest.fixture
def recorded(new_mediator):
    """recorded(**settings): a mediator that runs and records to its event_path."""

    def start(name="m", **settings):
        mediator = new_mediator(name)
        mediator.event_path = mediator.directory / "events"
        return mediator.start(event_log=mediator.event_path, **settings)

    return start


def works(mediator, uuid, jobs):
    with harness.Device(mediator.socket_of(uuid)) as device:
        device.answers(len([device.submit(wire.OP_CUDA_KERNEL, [n, n]) for n in range(jobs)]))


def refused(device, uuid, mediator):
    """Ten at once where one a second may be; returns how many were too many."""
    mediator.set_vm(uuid, max_jobs_per_sec=1)
    device.submit_all({1 + n: (wire.OP_NOP, [], b"") for n in range(10)})
    answers = device.answers(10)
    return sum(answer.code == wire.RATE_LIMITED for answer in answers.values())


def dies(mediator, uuid):
    """Kills the VM's worker under a job."""
    device = mediator.connect(uuid)
    device.works()
    device.submit(wire.OP_HANG)
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"], "a job in flight")
    os.kill(mediator.worker_pid(uuid), signal.SIGKILL)
    assert device.answer().code == wire.CUDA


def cancelled(mediator, uuid):
    device = mediator.connect(uuid)
    device.submit(wire.OP_HANG)

    def jobs():
        return [job["job"] for job in mediator.call("list-jobs")["jobs"] if job["vm_uuid"] == uuid]

    mediator.call("cancel-job", job=harness.wait_for(jobs, "a job")[0])
    assert device.answer().code == wire.CANCELLED


def test_a_mixed_load_is_played_again(recorded):
    mediator = recorded(quarantine_threshold=3)
    uuids = mediator.add_vms(1, 2, 3, 4)
    heavy, limited, unlucky, leaving = uuids
    mediator.set_vm(heavy, weight=4.0)
    device = mediator.connect(limited)
    with harness.Neighbour(mediator, heavy):
        works(mediator, leaving, 40)
        works(mediator, unlucky, 30)
        too_many = refused(device, limited, mediator)
        assert mediator.connect(unlucky).call(wire.OP_FAULT).code == wire.CUDA
        dies(mediator, unlucky)
        cancelled(mediator, leaving)
        mediator.configuration().write_text("quantum_us = 2000\n")
        assert mediator.reload()["changed"]
        mediator.set_vm(unlucky, job_timeout_ms=100, weight=2.0)
        assert mediator.connect(unlucky).call(wire.OP_HANG).code == wire.TIMEOUT
        mediator.remove_vm(leaving)
        works(mediator, heavy, 20)
    mediator.stop()
    figures = equal(mediator.event_path, "stopped")
    events, vms = figures["events"], figures["vms"]
    for name in ("vm_add", "vm_set", "vm_remove", "config_set", "restore", "job_cancel", "tick",
                 "worker_dead", "store_done", "client_gone", "shutdown", "abandon"):
        assert events[name] > 0, name
    assert figures["checks"] > sum(events.values()) / 40 and figures["decisions"] > 100
    assert [vm["refused"] for vm in vms] == [0, too_many, 0, 0] and too_many >= 5
    assert [vm["faults"] for vm in vms] == [0, 0, 3, 0]
    assert [vm["failed"] for vm in vms] == [0, 0, 3, 1]
    assert [vm["jobs"] for vm in vms[2:]] == [31, 40]
    assert [vm["phi"] for vm in vms] == [8, 2, 4, 2]
    assert sum(vm["due_ns"] for vm in vms) == pytest.approx(sum(vm["charged_ns"] for vm in vms))
    assert mediator.event_path.stat().st_mode & 0o777 == 0o600


def test_what_is_left_by_kill_9_is_played(recorded):
    mediator = recorded()
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    for number in range(200):
        device.add(number, 1)
    harness.wait_for(lambda: mediator.event_path.read_text().count("job_done") == 200, "a log")
    device.submit_all({n: (wire.OP_CUDA_KERNEL, [n, n], b"") for n in range(1000, 1100)})
    mediator.kill()
    figures = equal(mediator.event_path, "cut")
    assert figures["vms"][0]["jobs"] >= 200
    # A line that is cut is none; the next recording keeps this one.
    whole = mediator.event_path.read_bytes()
    mediator.event_path.write_bytes(whole + b"tick 12")
    assert equal(mediator.event_path, "cut") == figures
    mediator.start(event_log=mediator.event_path)
    assert (mediator.directory / "events.old").read_bytes() == whole + b"tick 12"
    mediator.connect(uuid).works()
    mediator.stop()
    assert equal(mediator.event_path, "stopped")["vms"][0]["jobs"] == 1


def test_jobs_that_are_given_up_at_the_end(recorded):
    mediator = recorded()
    device = mediator.connect(mediator.add_vm())
    device.works()
    device.submit(wire.OP_HANG)
    mediator.ping()
    mediator.signal(signal.SIGTERM)
    mediator.says("stopping")
    mediator.stop()
    figures = equal(mediator.event_path, "stopped")
    assert (figures["vms"][0]["jobs"], figures["vms"][0]["failed"]) == (1, 1)


# ---- Logs that are not as they were -------------------------------------------


@pytest.fixture(scope="module")
def log():
    """The lines of a log of some jobs."""
    with tempfile.TemporaryDirectory(prefix="vgpu-", dir="/tmp") as directory:
        mediator = harness.Mediator(directory)
        path = mediator.directory / "events"
        mediator.start(event_log=path)
        works(mediator, mediator.add_vm(), 50)
        mediator.stop()
        mediator.close()
        return path.read_text().splitlines(keepends=True)


def with_line(log, number, line):
    return log[:number] + [line] + log[number + 1:]


def first(log, kind):
    return next(n for n, line in enumerate(log) if line.split()[0] == kind)


def tampered(log, kind, place, value):
    """The log with another value in one line, and the line's number as people count."""
    number = first(log, kind)
    words = log[number].split()
    words[place] = str(value)
    return with_line(log, number, " ".join(words) + "\n"), number + 1


@pytest.fixture
def problem_of(tmp_path):
    def play(lines):
        path = tmp_path / "events"
        path.write_text("".join(lines))
        figures, said = replay(path, status=1)
        problem = figures["problem"]
        assert said == f"vgpu-sim: {path}:{problem['line']}: {problem['text']}\n"
        return problem["line"], problem["text"]

    return play


def test_a_line_that_cannot_be_is_named(log, problem_of):
    for kind, place, value in (("job_submitted", 2, 7), ("worker_ready", 1, 5), ("job_done", 5, 99)):
        lines, number = tampered(log, kind, place, value)
        assert problem_of(lines) == (number, "this cannot have happened here")


def test_a_line_that_leads_to_something_else_is_found(log, problem_of):
    """Between two checks: here the answer of the very event is another."""
    for kind, place, value in (("job_submitted", 8, 2), ("job_done", 5, 5)):
        lines, number = tampered(log, kind, place, value)
        line, text = problem_of(lines)
        since = int(text.split("since line ")[1].split()[0])
        assert since < number < line and log[line - 1].startswith("check")
        assert not any(x.startswith("check") for x in log[since:line - 1])


def test_a_line_that_is_missing_is_noticed(log, problem_of):
    number = first(log, "job_done")
    assert "lead to other actions" in problem_of(log[:number] + log[number + 1:])[1]


@pytest.mark.parametrize("change, line, text", [
    (lambda log: [], 0, "there is no event in this file"),
    (lambda log: log[:1], 1, "there is no event in this file"),
    (lambda log: ["[scenario]\n"], 1, "no event log that vgpu-sim"),
    (lambda log: ["vgpu-events 1 1.0\n"], 1, "no event log that vgpu-sim"),
    (lambda log: with_line(log, 1, log[2]), 2, "this cannot have happened here"),
    (lambda log: with_line(log, 2, "reboot 5\n"), 3, "there is no such event"),
    (lambda log: with_line(log, 2, "tick 1 2\n"), 3, "it has more numbers than this"),
    (lambda log: with_line(log, 2, "tick\n"), 3, "it has fewer numbers than it should"),
    (lambda log: with_line(log, 2, "tick +1\n"), 3, "not a whole number"),
    (lambda log: with_line(log, 2, "\0" * 9 + "\n"), 3, "this is no line of text"),
    (lambda log: with_line(log, 2, "x" * 70000 + "\n"), 3, "this is no line of text"),
    (lambda log: log + ["tick 1\n"], None, "there is more after the end"),
])
def test_a_file_that_is_no_log(log, problem_of, change, line, text):
    found = problem_of(change(log))
    assert found[0] == (len(log) + 1 if line is None else line) and text in found[1]


def test_no_file(tmp_path):
    done = subprocess.run([SIM, "--replay", tmp_path / "no"], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    assert done.returncode == 1 and "No such file" in done.stderr and not done.stdout


def test_the_table(log, tmp_path):
    path = tmp_path / "events"
    path.write_text("".join(log))
    done = subprocess.run([SIM, "--replay", path], capture_output=True, text=True,
                          timeout=LIMIT_S, check=True)
    lines = done.stdout.splitlines()
    assert f"by vgpu-mediator {log[0].split()[2]}; " in lines[0] and "ends with" in lines[0]
    assert lines[1] == f"equal at all of {sum(x.startswith('check') for x in log)} checks"
    assert ["job_submitted", "50"] in [line.split() for line in lines]
    assert lines[-2].split()[0] == "vm" and lines[-1].split()[:4] == ["0", "0", "2.00", "50"]


# ---- Where it cannot be written -------------------------------------------------


def flood(mediator, uuid, count):
    """Jobs that are refused, and cost an event each."""
    device = mediator.connect(uuid)
    for start in range(0, count, 500):
        device.submit_all({start + n: (wire.OP_NOP, [], b"") for n in range(500)})
        device.answers(500)


def test_a_full_log_ends_and_the_mediator_goes_on(recorded):
    mediator = recorded(event_log_max_mb=1)
    quarantined, other = mediator.insert_vm(1, quarantined=1), mediator.add_vm(2)
    flood(mediator, quarantined, 25000)
    mediator.says(f"event log {mediator.event_path}: event_log_max_mb is reached")
    mediator.connect(other).works()
    mediator.stop()
    assert mediator.log().count("event_log_max_mb") == 1
    assert (1 << 20) - 200 < mediator.event_path.stat().st_size <= 1 << 20
    assert equal(mediator.event_path, "full")["events"]["job_submitted"] > 10000


def test_a_disk_that_takes_no_more(new_mediator):
    """A limit on the size of files does to the log what a full disk does."""
    mediator = new_mediator()
    path = mediator.directory / "events"
    mediator.start(event_log=path, prefix=("prlimit", "--fsize=400000"))
    quarantined, other = mediator.insert_vm(1, quarantined=1), mediator.add_vm(2)
    flood(mediator, quarantined, 10000)
    mediator.says(f"event log {path}: File too large: it ends here")
    mediator.connect(other).works()
    mediator.stop()
    assert mediator.log().count("event log") == 2  # that it begins, and that it ends
    assert equal(path, "cut")["events"]["job_submitted"] > 5000


def test_a_disk_that_hangs_at_the_end(new_mediator):
    """The mediator ends all the same, and says how much it could not write."""
    mediator = new_mediator()
    path = mediator.directory / "events"
    mediator.environment = {
        "LD_PRELOAD": str(harness.STANDIN / "libstuck-write.so"),
        "VGPU_STUCK_WRITE": str(path),
    }
    mediator.start(event_log=path)
    uuid = mediator.add_vm()
    mediator.connect(uuid).works()
    harness.wait_for(lambda: "job_done" in path.read_text(), "the first job in the log")
    path.with_suffix(".stuck").touch()
    works(mediator, uuid, 20)
    mediator.stop()
    said = re.search(
        rf"event log {path}: the disk hangs: its last (\d+) bytes are lost", mediator.log()
    )
    assert int(said[1]) > 1000
    assert equal(path, "cut")["events"]["vm_add"] == 1


@pytest.mark.parametrize("name, why", [("no/events", "No such file"), ("vm", "that is no file")])
def test_a_place_where_nothing_can_be_written(new_mediator, name, why):
    mediator = new_mediator()
    mediator.sockets.mkdir()
    path = mediator.directory / name
    mediator.start(event_log=path)
    mediator.connect(mediator.add_vm()).works()
    mediator.stop()
    said = [line for line in mediator.log().splitlines() if "event log" in line]
    assert len(said) == 1 and f"event log {path}: {why}" in said[0] and "nothing is" in said[0]

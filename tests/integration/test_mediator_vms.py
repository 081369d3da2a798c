# SPDX-License-Identifier: MIT
"""VMs come, change and go while the mediator runs; rows that make no sense."""

import os
import signal

import pytest

import mediator as harness
import wire

SPIN_US = 300_000


def test_a_vm_comes_and_goes(mediator):
    uuid = mediator.insert_vm(1)
    report = mediator.reload()
    assert (report["removed"], report["errors"]) == (0, [])
    device = mediator.connect(uuid)
    device.works()
    worker = mediator.worker_pid(uuid)
    mediator.remove_vm(uuid)
    assert not mediator.socket_of(uuid).exists()
    assert device.ended() == b""
    harness.wait_for(lambda: not harness.alive(worker), "the end of its worker")
    assert mediator.status()["vms"] == []
    mediator.insert_vm(1)
    mediator.reload()
    mediator.connect(uuid).works()


def test_a_change_is_seen_without_being_told(mediator):
    """Somebody writes to the file and says nothing: it is noticed all the same."""
    uuid = mediator.insert_vm(1)
    harness.wait_for(mediator.socket_of(uuid).exists, "its socket")
    mediator.connect(uuid).works()
    with mediator.registry() as registry:
        registry.execute("DELETE FROM vms")
    harness.wait_for(lambda: not mediator.socket_of(uuid).exists(), "the end of its socket")


def test_jobs_of_a_removed_vm_are_answered(mediator):
    """The one that runs ends, the queued ones are cancelled, and then the line goes dead."""
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    device.works()
    device.submit_all({n: (wire.OP_SPIN, [SPIN_US]) for n in range(1, 10)})
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 9, "nine jobs")
    mediator.remove_vm(uuid)
    assert not mediator.socket_of(uuid).exists()
    assert mediator.vm_status(uuid) is None
    answers = device.answers(9)
    codes = [answers[id_].code for id_ in range(1, 10)]
    done = codes.count(wire.OK)
    assert 1 <= done <= 4
    assert codes == done * [wire.OK] + (9 - done) * [wire.CANCELLED]
    assert device.ended() == b""
    harness.wait_for(lambda: mediator.workers() == [], "the end of its worker")
    mediator.connect(other).works()


def test_a_removed_vm_that_waits_for_a_place(new_mediator):
    """Its jobs are answered though nothing of it is left to wait for."""
    mediator = new_mediator().start(max_workers=1, max_queue_per_vm=50)
    first, second = mediator.add_vms(1, 2)
    holder = mediator.connect(first)
    holder.submit(wire.OP_HANG)
    harness.wait_for(lambda: mediator.vm_status(first)["in_flight"] == 1, "the hanging job")
    device = mediator.connect(second)
    device.submit_all({n: (wire.OP_NOP,) for n in range(1, 101)})
    harness.wait_for(lambda: mediator.vm_status(second)["queue_depth"] == 50, "a full queue")
    mediator.remove_vm(second)
    answers = device.answers(50)
    assert {answer.code for answer in answers.values()} == {wire.CANCELLED}
    assert device.ended() == b""
    os.kill(mediator.worker_pid(first), signal.SIGKILL)
    assert holder.answer().code == wire.CUDA


def test_a_removed_vm_that_comes_back_at_once(mediator):
    """While a job of the old one still runs, the new one is another VM."""
    uuid = mediator.add_vm()
    old = mediator.connect(uuid)
    old.works()
    running = old.submit(wire.OP_SPIN, [SPIN_US])
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "a job in flight")
    mediator.remove_vm(uuid)
    mediator.insert_vm(1)
    mediator.reload()
    new = mediator.connect(uuid)
    new.works()
    new.nothing_more()
    answer = old.answer()
    assert (answer.id, answer.code) == (running, wire.OK)
    assert old.ended() == b""
    assert mediator.vm_status(uuid)["jobs_done"] == 1


def test_requests_to_a_removed_vm_are_not_run(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    device.submit(wire.OP_SPIN, [SPIN_US])
    harness.wait_for(lambda: mediator.vm_status(uuid)["in_flight"] == 1, "a job in flight")
    mediator.remove_vm(uuid)
    late = device.submit(wire.OP_CUDA_KERNEL, [1, 2])
    codes = []
    try:
        while True:
            answer = device.answer()
            codes.append((answer.id == late, answer.code))
    except (EOFError, ConnectionResetError):
        pass
    assert codes[-1:] in ([(False, wire.OK)], [(True, wire.UNAVAILABLE)])


def test_changes_are_in_force_at_once(mediator):
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    device.works()
    report = mediator.set_vm(
        uuid, vm_name="renamed", priority=2, pool_id="B", weight=2.5, max_jobs_per_sec=0.001
    )
    assert report["errors"] == []
    vm = mediator.vm_status(uuid)
    assert (vm["vm_name"], vm["priority"], vm["pool"]) == ("renamed", "high", "B")
    assert vm["weight"] == 2.5
    device.works()
    assert device.call(wire.OP_NOP).code == wire.RATE_LIMITED
    mediator.set_vm(uuid, max_jobs_per_sec=1000)
    harness.wait_for(lambda: device.call(wire.OP_NOP).code == wire.OK, "the new limit", 5)


def test_a_gpu_limit_forgives_what_was_used_before_it(mediator):
    """A VM that gets a limit pays for what it uses from then on."""
    uuid = mediator.add_vm()
    device = mediator.connect(uuid)
    assert device.call(wire.OP_SPIN, [SPIN_US]).code == wire.OK
    mediator.set_vm(uuid, gpu_seconds_per_sec=0.001)
    device.works()


# ---- Rows that cannot be served ---------------------------------------------


@pytest.mark.parametrize(
    "columns, word",
    [
        ({"vm_uuid": "../../../etc/passwd"}, "vm_uuid"),
        ({"vm_uuid": ""}, "vm_uuid"),
        ({"vm_uuid": "no-uuid-but-as-long-as-one-is-------"}, "vm_uuid"),
        ({"vm_uuid": b"\xff\xfe".decode("latin-1") * 18}, "vm_uuid"),
        ({"weight": 0}, "weight"),
        ({"weight": 1000}, "weight"),
        ({"weight": "much"}, "weight"),
        ({"max_jobs_per_sec": -1}, "max_jobs_per_sec"),
        ({"max_queue_depth": 1e300}, "max_queue_depth"),
        ({"priority": 7}, "priority"),
        ({"pool_id": "Z"}, "pool_id"),
        ({"vm_id": -1}, "vm_id"),
        ({"vm_id": 2**40}, "vm_id"),
        ({"quarantined": 2}, "quarantined"),
        ({"job_timeout_ms": 1}, "job_timeout_ms"),
    ],
)
def test_an_invalid_row(mediator, columns, word):
    """Its VM is not served, a reload says so, and nobody else notices."""
    first = mediator.add_vm(1)
    with mediator.registry() as registry:
        registry.execute("PRAGMA ignore_check_constraints = ON")
        row = {"vm_id": 2, "vm_uuid": harness.uuid_of(2), "vm_name": "bad", **columns}
        marks = ", ".join("?" * len(row))
        registry.execute(f"INSERT INTO vms ({', '.join(row)}) VALUES ({marks})", (*row.values(),))
    mediator.insert_vm(3)
    report = mediator.reload()
    assert len(report["errors"]) == 1
    assert word in report["errors"][0]
    sockets = sorted(path.name for path in mediator.sockets.iterdir())
    assert sockets == [f"{harness.uuid_of(n)}.sock" for n in (1, 3)]
    mediator.connect(first).works()
    mediator.connect(harness.uuid_of(3)).works()
    with mediator.registry() as registry:
        registry.execute("DELETE FROM vms WHERE vm_name = 'bad'")
    mediator.insert_vm(2)
    assert mediator.reload()["errors"] == []
    mediator.connect(harness.uuid_of(2)).works()


def test_a_served_row_that_becomes_invalid(mediator):
    """The VM goes on as it was when its row made sense, or is not served; nothing else."""
    uuid, other = mediator.add_vms(1, 2)
    device = mediator.connect(uuid)
    device.works()
    report = mediator.set_vm(uuid, weight=-5)
    assert len(report["errors"]) == 1 and uuid in report["errors"][0]
    mediator.connect(other).works()
    assert mediator.set_vm(uuid, weight=5)["errors"] == []
    mediator.connect(uuid).works()


def test_odd_names(mediator):
    """A name is text for people and nothing else."""
    names = ["", None, "O'Brien; DROP TABLE vms", "Zoë ☃ 🖥", "two\nlines\r\x1b[31m", "n" * 5000]
    uuids = [mediator.insert_vm(n, vm_name=name) for n, name in enumerate(names, 1)]
    report = mediator.reload()
    assert report["errors"] == []
    for uuid in uuids:
        mediator.connect(uuid).works()
    shown = [mediator.vm_status(uuid)["vm_name"] for uuid in uuids]
    assert shown == names
    for uuid in uuids:
        report = mediator.set_vm(uuid, priority=2)
    assert "\x1b" not in mediator.log()
    assert all(line.startswith("vgpu-") for line in mediator.log().splitlines())


def test_a_name_that_is_no_text(mediator):
    """Bytes that are no UTF-8 in a name, which SQLite stores without a question."""
    with mediator.registry() as registry:
        registry.execute(
            "INSERT INTO vms (vm_id, vm_uuid, vm_name) VALUES (1, ?, CAST(x'ff6869fe' AS TEXT))",
            (harness.uuid_of(1),),
        )
    mediator.reload()
    mediator.connect(harness.uuid_of(1)).works()
    assert mediator.vm_status(harness.uuid_of(1))["jobs_done"] == 1
    assert mediator.workers()[0]["ready"]
    report = mediator.set_vm(harness.uuid_of(1), priority=0)
    assert len(report["changed"]) <= 1


# ---- Jobs and connections ---------------------------------------------------


def test_the_new_connection_never_sees_old_answers(mediator):
    """Closing is the fence: queued jobs are dropped, the one that runs ends unheard."""
    uuid = mediator.add_vm()
    old = mediator.connect(uuid)
    old.works()
    old.submit_all({n: (wire.OP_SPIN, [SPIN_US]) for n in range(1, 9)})
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 8, "eight jobs")
    sent = mediator.vm_status(uuid)["in_flight"]
    old.close()
    with mediator.connect(uuid) as new:
        new.submit_all({n: (wire.OP_CUDA_KERNEL, [n, 1000]) for n in range(1, 9)})
        answers = new.answers(8)
        assert {id_: answer.words for id_, answer in answers.items()} == {
            n: [n + 1000] for n in range(1, 9)
        }
        new.nothing_more()
    status = mediator.vm_status(uuid)
    # The first job, the ones in flight then, and the new ones; the others were dropped.
    assert status["jobs_done"] == 1 + sent + 8
    assert status["queue_depth"] == 0
    assert sent < 8


def test_connections_of_one_vm_do_not_mix(mediator):
    uuid = mediator.add_vm()
    devices = [mediator.connect(uuid) for _ in range(4)]
    for number, device in enumerate(devices):
        device.submit_all({n: (wire.OP_CUDA_KERNEL, [n, number * 1000]) for n in range(100)})
    for number, device in enumerate(devices):
        answers = device.answers(100)
        assert {id_: a.words for id_, a in answers.items()} == {
            n: [n + number * 1000] for n in range(100)
        }
    devices[0].submit(wire.OP_HANG)
    ids = [device.submit(wire.OP_CUDA_KERNEL, [1, 1]) for device in devices[1:]]
    harness.wait_for(lambda: mediator.vm_status(uuid)["queue_depth"] == 4, "four jobs")
    devices[0].close()
    harness.wait_for(lambda: mediator.connections(uuid) == 3, "the end of a connection")
    os.kill(mediator.worker_pid(uuid), signal.SIGKILL)
    for device, id_ in zip(devices[1:], ids):
        answer = device.answer()
        assert answer.id == id_
        assert answer.code in (wire.OK, wire.CONTEXT_LOST)
        device.works()

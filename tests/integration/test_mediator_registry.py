# SPDX-License-Identifier: MIT
"""The database under the mediator: old files, damaged ones, and disks in trouble.

At start each trouble is its own message that names the file and the remedy, and exit
status 1. While it runs, no trouble of the database touches a job.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest

import mediator as harness
import wire

# As Phase 2 creates it.
PHASE_2 = """
CREATE TABLE pools (
    pool_id CHAR(1) PRIMARY KEY CHECK (pool_id IN ('A', 'B')),
    pool_name TEXT NOT NULL,
    description TEXT,
    enabled INTEGER DEFAULT 1,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO pools (pool_id, pool_name) VALUES ('A', 'Pool A'), ('B', 'Pool B');
CREATE TABLE vms (
    vm_id INTEGER NOT NULL UNIQUE,
    vm_uuid TEXT UNIQUE NOT NULL,
    vm_name TEXT,
    pool_id CHAR(1) NOT NULL DEFAULT 'A' CHECK (pool_id IN ('A', 'B')),
    priority INTEGER NOT NULL DEFAULT 1 CHECK (priority IN (0, 1, 2)),
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (pool_id) REFERENCES pools(pool_id)
);
CREATE INDEX idx_vm_uuid ON vms(vm_uuid);
CREATE INDEX idx_vm_pool ON vms(pool_id);
CREATE INDEX idx_vm_priority ON vms(priority);
"""

NAMES = ["web-01", None, "", "O'Brien; DROP TABLE vms; --", "Zoë ☃ 🖥", "two\nlines\t\x1b[31m", "n" * 4000]

# Run in a mount namespace with the database's directory as $1; ends with exec.
WITH_MOUNT = ["unshare", "-m", "sh", "-e", "-c"]


def create(path, script, rows=()):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO vms ({', '.join(row)}) VALUES ({marks})", (*row.values(),))
    connection.commit()
    connection.close()


def rows_of_phase_2():
    return [
        {
            "vm_id": 100 + n,
            "vm_uuid": harness.uuid_of(n),
            "vm_name": name,
            "pool_id": "AB"[n % 2],
            "priority": n % 3,
            "created_at": f"2023-01-0{n + 1} 12:00:00",
        }
        for n, name in enumerate(NAMES)
    ]


def query(path, sql):
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def assert_sound(path):
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def assert_nothing_left(mediator):
    """A start that failed leaves no socket behind."""
    assert not mediator.admin_path.exists()
    assert not mediator.sockets.exists() or list(mediator.sockets.iterdir()) == []


# ---- Files of before --------------------------------------------------------


def test_no_file(new_mediator):
    """A missing file is created whole."""
    mediator = new_mediator().start()
    assert query(mediator.database, "SELECT pool_id, pool_name, enabled FROM pools") == [
        ("A", "Pool A", 1),
        ("B", "Pool B", 1),
    ]
    columns = {row[1] for row in query(mediator.database, "PRAGMA table_info(vms)")}
    assert {"weight", "max_jobs_per_sec", "max_queue_depth", "quarantined", "error_count"} <= columns
    assert query(mediator.database, "PRAGMA user_version")[0][0] > 0
    mediator.connect(mediator.add_vm()).works()


def test_a_file_of_phase_2(new_mediator):
    """It is upgraded with every row kept, a copy of it stays, and its VMs are served."""
    mediator = new_mediator()
    create(mediator.database, PHASE_2, rows_of_phase_2())
    sql = "SELECT vm_id, vm_uuid, vm_name, pool_id, priority, created_at FROM vms ORDER BY vm_id"
    before = query(mediator.database, sql)
    mediator.start()
    assert query(mediator.database, sql) == before
    assert_sound(mediator.database)
    version = query(mediator.database, "PRAGMA user_version")[0][0]
    assert version > 0
    [copy] = mediator.directory.glob("v.db.backup-*")
    assert query(copy, sql) == before
    assert query(copy, "PRAGMA user_version") == [(0,)]
    assert str(copy) in mediator.log()
    for row in rows_of_phase_2():
        device = mediator.connect(row["vm_uuid"])
        device.works()
        device.close()
        vm = mediator.vm_status(row["vm_uuid"])
        assert (vm["vm_id"], vm["vm_name"], vm["pool"]) == (
            row["vm_id"],
            row["vm_name"],
            row["pool_id"],
        )
        assert vm["priority"] == ("low", "medium", "high")[row["priority"]]
        assert (vm["weight"], vm["quarantined"]) == (1.0, False)
    mediator.stop()
    # The second start finds nothing to do.
    mediator.start()
    assert len(list(mediator.directory.glob("v.db.backup-*"))) == 1
    # What Phase 2's tools write still works.
    with mediator.registry() as registry:
        registry.execute(
            "INSERT INTO vms (vm_id, vm_uuid, vm_name, pool_id, priority) "
            "VALUES (300, ?, 'late', 'B', 2)",
            (harness.uuid_of(300),),
        )
    mediator.reload()
    mediator.says("registry: 1 VM added, 0 removed, 0 changes")
    mediator.connect(harness.uuid_of(300)).works()


@pytest.mark.parametrize("weight", ["INTEGER DEFAULT 50", "REAL DEFAULT 1.0"])
def test_a_file_of_the_trials(new_mediator, weight):
    """It has the columns already, and user_version 0."""
    mediator = new_mediator()
    trial = f"""
        ALTER TABLE vms ADD COLUMN weight {weight};
        ALTER TABLE vms ADD COLUMN max_jobs_per_sec INTEGER DEFAULT 0;
        ALTER TABLE vms ADD COLUMN max_queue_depth INTEGER DEFAULT 0;
        ALTER TABLE vms ADD COLUMN quarantined INTEGER DEFAULT 0;
        ALTER TABLE vms ADD COLUMN error_count INTEGER DEFAULT 0;
        ALTER TABLE vms ADD COLUMN notes TEXT;
    """
    rows = [
        {"vm_id": 1, "vm_uuid": harness.uuid_of(1), "weight": 80, "notes": "kept"},
        {"vm_id": 2, "vm_uuid": harness.uuid_of(2), "weight": 2, "quarantined": 1},
        {"vm_id": 3, "vm_uuid": harness.uuid_of(3), "weight": 0},  # what a trial allowed
    ]
    create(mediator.database, PHASE_2 + trial, rows)
    mediator.start()
    assert_sound(mediator.database)
    assert query(mediator.database, "SELECT weight, notes FROM vms ORDER BY vm_id")[0] == (80, "kept")
    mediator.connect(harness.uuid_of(1)).works()
    assert mediator.vm_status(harness.uuid_of(1))["weight"] == 80
    refused = mediator.connect(harness.uuid_of(2)).call(wire.OP_NOP)
    assert refused.code == wire.QUARANTINED
    # A weight that makes no sense is that VM's trouble alone.
    assert not mediator.socket_of(harness.uuid_of(3)).exists()
    assert harness.uuid_of(3) in mediator.log()
    # New VMs get the weight that the contract says.
    mediator.add_vm(4)
    assert mediator.vm_status(harness.uuid_of(4))["weight"] == 1.0


def test_a_file_of_a_newer_version(new_mediator):
    mediator = new_mediator()
    create(mediator.database, PHASE_2 + "PRAGMA user_version = 4711;", rows_of_phase_2())
    before = mediator.database.read_bytes()
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "4711" in said and "newer" in said
    assert mediator.database.read_bytes() == before
    assert os.listdir(mediator.directory).count("v.db") == 1
    assert_nothing_left(mediator)


# ---- Trouble at start -------------------------------------------------------


def test_no_sqlite_file(new_mediator):
    mediator = new_mediator()
    mediator.database.write_bytes(b"This is no database.\n" * 200)
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "no SQLite database" in said and "restore" in said
    assert mediator.database.read_bytes() == b"This is no database.\n" * 200
    assert_nothing_left(mediator)


def test_somebody_elses_database(new_mediator):
    mediator = new_mediator()
    create(mediator.database, "CREATE TABLE bookmarks (url TEXT);")
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "no registry of VMs" in said and "path" in said
    assert query(mediator.database, "SELECT name FROM sqlite_master") == [("bookmarks",)]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_file(new_mediator, keep):
    mediator = new_mediator()
    rows = [{"vm_id": n, "vm_uuid": harness.uuid_of(n), "vm_name": "x" * 500} for n in range(100)]
    create(mediator.database, PHASE_2, rows)
    whole = mediator.database.read_bytes()
    mediator.database.write_bytes(whole[: int(len(whole) * keep)])
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "damaged" in said and "restore" in said
    assert_nothing_left(mediator)


def test_a_damaged_file(new_mediator):
    mediator = new_mediator()
    rows = [{"vm_id": n, "vm_uuid": harness.uuid_of(n), "vm_name": "x" * 500} for n in range(100)]
    create(mediator.database, PHASE_2, rows)
    content = bytearray(mediator.database.read_bytes())
    for page in range(2, len(content) // 4096, 3):
        content[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
    mediator.database.write_bytes(content)
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "damaged" in said and "restore" in said
    assert_nothing_left(mediator)


def test_a_locked_file(new_mediator):
    mediator = new_mediator()
    create(mediator.database, PHASE_2, rows_of_phase_2())
    holder = sqlite3.connect(mediator.database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "another process holds it" in said
    assert "fuser" in said
    assert_nothing_left(mediator)
    holder.execute("ROLLBACK")
    holder.close()
    mediator.start()
    mediator.connect(harness.uuid_of(0)).works()


def test_no_directory(new_mediator):
    mediator = new_mediator()
    mediator.database = mediator.directory / "not" / "here" / "v.db"
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said
    assert f"no directory {mediator.database.parent}" in said and "create it" in said
    assert_nothing_left(mediator)


def test_a_directory_in_its_place(new_mediator):
    mediator = new_mediator()
    mediator.database.mkdir()
    said = mediator.refuses_to_start()
    assert str(mediator.database) in said and "no regular file" in said


def with_mount(mediator, script):
    """Puts the database into a directory of its own; @script mounts there ($1)."""
    place = mediator.directory / "db"
    place.mkdir(exist_ok=True)
    mediator.database = place / "v.db"
    return [*WITH_MOUNT, f'{script}; shift; exec "$@"', "sh", str(place)]


@pytest.mark.parametrize("exists", [True, False], ids=["file", "no-file"])
def test_read_only_file_system(new_mediator, namespaces, exists):
    mediator = new_mediator()
    prefix = with_mount(mediator, 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"')
    if exists:
        create(mediator.database, PHASE_2, rows_of_phase_2())
    said = mediator.refuses_to_start(prefix=prefix)
    assert str(mediator.database) in said
    if exists:
        assert "read-only" in said and "make it writable" in said
    else:
        assert "check owner and mode" in said or "read-only" in said
    assert_nothing_left(mediator)


def test_full_disk(new_mediator, namespaces):
    """An upgrade for which there is no room: the file stays as it is."""
    mediator = new_mediator()
    seed = mediator.directory / "seed.db"
    create(seed, PHASE_2, rows_of_phase_2())
    prefix = with_mount(
        mediator,
        'mount -t tmpfs -o size=64k none "$1"; cp "$1/../seed.db" "$1/v.db"; '
        'cat /dev/zero >"$1/fill" || true',
    )
    said = mediator.refuses_to_start(prefix=prefix)
    assert str(mediator.database) in said and "disk is full" in said and "free some space" in said
    assert_nothing_left(mediator)


# ---- Trouble while it runs --------------------------------------------------


def start_on_a_small_disk(mediator):
    """Starts on a tmpfs with two VMs registered; returns where it can be seen from here."""
    seed = mediator.directory / "seed.db"
    create(
        seed, PHASE_2, [{"vm_id": n, "vm_uuid": harness.uuid_of(n), "vm_name": "x"} for n in (1, 2)]
    )
    prefix = with_mount(
        mediator, 'mount -t tmpfs -o size=512k none "$1"; cp "$1/../seed.db" "$1/v.db"'
    )
    mediator.start(prefix=prefix)
    root = f"/proc/{mediator.process.pid}/root"
    return harness.pathlib.Path(root + str(mediator.database.parent))


def test_a_disk_that_fills_up(new_mediator, namespaces):
    """Faults cannot be written down; jobs go on; with room again all is as before."""
    mediator = new_mediator()
    place = start_on_a_small_disk(mediator)
    first, second = harness.uuid_of(1), harness.uuid_of(2)
    device = mediator.connect(first)
    with harness.Neighbour(mediator, second):
        device.works()
        assert mediator.status()["database"]["ok"] is True
        with open(place / "fill", "wb", buffering=0) as fill:
            with pytest.raises(OSError):
                while True:
                    fill.write(bytes(4096))
        for _ in range(3):
            assert device.call(wire.OP_FAULT).code == wire.CUDA
        mediator.says("disk is full")
        assert str(mediator.database) in mediator.log()
        harness.wait_for(lambda: not mediator.status()["database"]["ok"], "a word in the status")
        device.works()
        (place / "fill").unlink()
        assert device.call(wire.OP_FAULT).code == wire.CUDA
        harness.wait_for(lambda: mediator.status()["database"]["ok"], "a healthy database")
        device.works()
    # Through /proc/PID/root SQLite would look in the wrong place: look at a copy.
    shutil.copy(place / "v.db", mediator.directory / "copy.db")
    assert_sound(mediator.directory / "copy.db")
    assert mediator.log().count("disk is full") == 1


def test_a_file_locked_while_running(mediator):
    """Jobs go on; a reload says what is wrong; what changed meanwhile is taken up after it."""
    first, second = mediator.add_vms(1, 2)
    device = mediator.connect(first)
    with harness.Neighbour(mediator, second):
        holder = sqlite3.connect(mediator.database, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        refusals = []

        def reload():
            try:
                mediator.reload()
            except harness.Refusal as refusal:
                refusals.append(str(refusal))

        thread = threading.Thread(target=reload)
        thread.start()
        while thread.is_alive():
            device.works()
            mediator.status()
            thread.join(0.05)
        assert len(refusals) == 1
        assert str(mediator.database) in refusals[0] and "another process holds it" in refusals[0]
        assert mediator.status()["database"]["ok"] is False
        holder.execute("COMMIT")
        holder.close()
        mediator.add_vm(3)
        mediator.connect(harness.uuid_of(3)).works()
        assert mediator.status()["database"]["ok"] is True


def test_what_cannot_be_recorded_at_the_end_is_told(mediator):
    """However much waits for a locked file, all of it has one deadline."""
    uuids = mediator.add_vms(*range(1, 13))
    devices = [mediator.connect(uuid) for uuid in uuids]
    for device in devices:
        device.works()
    with mediator.admin() as admin, mediator.registry() as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for device in devices:
            device.submit(wire.OP_FAULT)
        harness.wait_for(lambda: mediator.log().count(": fault: ") == 12, "twelve faults")
        admin.sendall(b'{"id":1,"method":"reload"}\n')
        mediator.signal(signal.SIGTERM)
        mediator.says("stopping")
        mediator.stop()
    lost = [line for line in mediator.log().splitlines() if "not recorded at the end" in line]
    assert len(lost) == 12
    for uuid in uuids:
        assert sum(line.endswith(f"VM {uuid}: fault: worker_death, 1 point") for line in lost) == 1


def test_a_change_hidden_by_a_lock_is_not_forgotten(mediator):
    """Committed, and then the file is locked for longer than anybody waits for it."""
    mediator.add_vm(1)
    holder = sqlite3.connect(mediator.database, isolation_level=None, timeout=harness.LIMIT_S)
    mediator.insert_vm(2)
    holder.execute("BEGIN EXCLUSIVE")
    mediator.says("another process holds it")
    assert not mediator.socket_of(harness.uuid_of(2)).exists()
    holder.execute("ROLLBACK")
    holder.close()
    harness.wait_for(mediator.socket_of(harness.uuid_of(2)).exists, "the new VM's socket", 20)


def test_a_file_put_in_its_place(mediator):
    """A backup is restored under the running mediator: its VMs are served."""
    mediator.add_vm(1)
    other = mediator.directory / "other.db"
    create(other, PHASE_2, [{"vm_id": 9, "vm_uuid": harness.uuid_of(9)}])
    os.rename(other, mediator.database)
    mediator.reload()
    assert mediator.socket_of(harness.uuid_of(9)).exists()
    assert not mediator.socket_of(harness.uuid_of(1)).exists()
    mediator.connect(harness.uuid_of(9)).works()


def test_a_file_that_vanishes(mediator):
    """Nobody is removed; the log and the status tell; when it is back it is read."""
    uuid = mediator.add_vm(1)
    device = mediator.connect(uuid)
    device.works()
    away = mediator.directory / "away.db"
    os.rename(mediator.database, away)
    mediator.says(f"registry {mediator.database} is gone; put it back")
    assert device.call(wire.OP_FAULT).code == wire.CUDA
    assert mediator.status()["database"]["ok"] is False
    with pytest.raises(harness.Refusal, match="put it back"):
        mediator.reload()
    mediator.database.touch()  # somebody begins to copy it back
    with pytest.raises(harness.Refusal, match="put it back"):
        mediator.reload()
    device.works()
    create(away, "", [{"vm_id": 2, "vm_uuid": harness.uuid_of(2)}])
    os.rename(away, mediator.database)
    mediator.reload()
    device.works()
    mediator.connect(harness.uuid_of(2)).works()
    assert mediator.status()["database"]["ok"] is True


def test_many_writers(mediator):
    """Whatever tools do to the file at the same time, jobs go on and the file stays sound."""
    uuid = mediator.add_vm(1)
    script = (
        "import sqlite3, sys\n"
        "for n in range(40):\n"
        "    with sqlite3.connect(sys.argv[1], timeout=60) as db:\n"
        "        db.execute('UPDATE vms SET weight = ? WHERE vm_id = 1', (1 + n,))\n"
    )
    writers = [
        subprocess.Popen(["/usr/bin/python3", "-c", script, mediator.database]) for _ in range(3)
    ]
    device = mediator.connect(uuid)
    while any(writer.poll() is None for writer in writers):
        device.works()
        mediator.reload()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    mediator.reload()
    assert mediator.vm_status(uuid)["weight"] == 40
    assert_sound(mediator.database)

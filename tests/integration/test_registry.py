# SPDX-License-Identifier: MIT
"""The registry's file under bad circumstances: locked, read-only, full disk, killed in
the middle of an upgrade, opened by many at once. Driven through vgpu-admin."""

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from paths import ADMIN

SCHEMA = """
CREATE TABLE pools (pool_id CHAR(1) PRIMARY KEY CHECK (pool_id IN ('A','B')),
  pool_name TEXT NOT NULL, description TEXT, enabled INTEGER DEFAULT 1,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO pools (pool_id, pool_name) VALUES ('A', 'Pool A'), ('B', 'Pool B');
CREATE TABLE vms (vm_id INTEGER NOT NULL UNIQUE, vm_uuid TEXT UNIQUE NOT NULL, vm_name TEXT,
  pool_id CHAR(1) NOT NULL DEFAULT 'A' CHECK (pool_id IN ('A','B')),
  priority INTEGER NOT NULL DEFAULT 1 CHECK (priority IN (0,1,2)),
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
  {further}, FOREIGN KEY (pool_id) REFERENCES pools(pool_id));
CREATE INDEX idx_vm_uuid ON vms(vm_uuid);
CREATE INDEX idx_vm_pool ON vms(pool_id);
CREATE INDEX idx_vm_priority ON vms(priority);
"""
TRIAL = """, weight INTEGER DEFAULT 50, max_jobs_per_sec INTEGER DEFAULT 0,
  max_queue_depth INTEGER DEFAULT 0, quarantined INTEGER DEFAULT 0,
  error_count INTEGER DEFAULT 0"""


def uuid(number):
    return f"aaaaaaaa-0000-4000-8000-{number:012x}"


def old_file(path, count, further=""):
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA.format(further=further))
        db.executemany("INSERT INTO vms (vm_id, vm_uuid, vm_name) VALUES (?, ?, ?)",
                       [(n, uuid(n), f"it's \"{n}\"\n\u20ac") for n in range(1, count + 1)])
    db.close()


def rows(path):
    db = sqlite3.connect(path)
    found = db.execute("SELECT vm_id, vm_uuid, vm_name, pool_id, priority, created_at, updated_at "
                       "FROM vms ORDER BY vm_id").fetchall()
    db.close()
    return found


def version(path):
    db = sqlite3.connect(path)
    (number,), = db.execute("PRAGMA user_version")
    (sound,), = db.execute("PRAGMA integrity_check")
    db.close()
    assert sound == "ok"
    return number


def admin(path, *arguments, **more):
    return subprocess.run([ADMIN, "--db", path, "--admin-socket", "/nonexistent", *arguments],
                          capture_output=True, timeout=120, **more)


# Any change opens the file for writing, and so upgrades it.
CHANGE = ("set-enabled", "--pool=A", "--enabled=yes")


def backups(path):
    return sorted(path.parent.glob(path.name + ".backup-*"))


@pytest.mark.parametrize("further", ["", TRIAL], ids=["phase2", "trial"])
def test_upgrade(directory, further):
    path = directory / "vgpu.db"
    old_file(path, 500, further)
    os.chmod(path, 0o640)
    before = rows(path)
    done = admin(path, *CHANGE)
    assert done.returncode == 0, done.stderr
    backup, = backups(path)
    assert str(backup).encode() in done.stderr
    assert rows(path) == rows(backup) == before
    assert (version(path), version(backup)) == (4, 0)
    assert backup.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in directory.iterdir()) == [path.name, backup.name]
    assert admin(path, *CHANGE).stderr == b""
    assert backups(path) == [backup]


def test_no_backup_is_overwritten(directory):
    """The names of the next seconds are taken; what is there stays."""
    path = directory / "vgpu.db"
    old_file(path, 1)
    now = time.time()
    taken = [directory / time.strftime("vgpu.db.backup-v0-%Y%m%dT%H%M%S", time.gmtime(now + s))
             for s in range(60)]
    for file in taken:
        file.write_text("mine")
    assert admin(path, *CHANGE).returncode == 0
    made, = set(backups(path)) - set(taken)
    assert made.name.endswith("-2") and version(made) == 0
    assert all(file.read_text() == "mine" for file in taken)


@pytest.mark.parametrize("further", ["", TRIAL], ids=["phase2", "trial"])
def test_killed_in_the_middle_of_an_upgrade(directory, further):
    """At whatever instant: the file is the old one or the new one, and the next try works."""
    original = directory / "original.db"
    old_file(original, 6000, further)
    before = rows(original)
    started = time.monotonic()
    path = directory / "timed.db"
    shutil.copy(original, path)
    assert admin(path, *CHANGE).returncode == 0
    whole = time.monotonic() - started
    seen = set()
    draw = random.Random(20)
    for attempt in range(20):
        path = directory / f"{attempt}.db"
        shutil.copy(original, path)
        child = subprocess.Popen([ADMIN, "--db", path, "--admin-socket", "/nonexistent", *CHANGE],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(draw.uniform(0, whole * 1.1))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        # Any backup that has its name is whole.
        for backup in backups(path):
            assert rows(backup) == before and version(backup) == 0
        reached = version(path)
        seen.add((reached, child.returncode))
        assert reached in (0, 4)
        assert rows(path) == before
        assert admin(path, *CHANGE).returncode == 0
        assert version(path) == 4 and rows(path) == before
        assert not (directory / f"{path.name}.backup.part").exists()
        for file in directory.glob(f"{attempt}.db*"):
            file.unlink()
    assert any(reached == 0 for reached, _ in seen)


def test_killed_creation(directory):
    for attempt in range(10):
        path = directory / f"{attempt}.db"
        child = subprocess.Popen([ADMIN, "--db", path, "--admin-socket", "/nonexistent", *CHANGE],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(attempt * 0.002)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert admin(path, *CHANGE).returncode == 0
        assert version(path) == 4


def test_many_upgrade_at_once(directory):
    path = directory / "vgpu.db"
    old_file(path, 200, TRIAL)
    before = rows(path)
    children = [subprocess.Popen([ADMIN, "--db", path, "--admin-socket", "/nonexistent",
                                  "set-vm-id", f"--vm-uuid={uuid(n)}", f"--vm-id={n + 1000}"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for n in range(1, 7)]
    for child in children:
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
    assert len(backups(path)) == 1
    assert [row[0] for row in rows(path)[-6:]] == list(range(1001, 1007))
    assert [row[1] for row in rows(path)][:194] == [row[1] for row in before][6:]


def test_locked(directory):
    path = directory / "vgpu.db"
    old_file(path, 1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for arguments in (CHANGE, ("list-vms",)):
        done = admin(path, *arguments)
        assert done.returncode == 1
        assert str(path).encode() in done.stderr and b"another process holds it" in done.stderr
    holder.execute("ROLLBACK")
    holder.close()
    assert admin(path, *CHANGE).returncode == 0


def test_a_short_lock_is_waited_for(directory):
    path = directory / "vgpu.db"
    old_file(path, 1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    child = subprocess.Popen([ADMIN, "--db", path, "--admin-socket", "/nonexistent", *CHANGE],
                             stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    holder.execute("COMMIT")
    assert child.wait(60) == 0
    child.stderr.close()
    holder.close()


def in_namespace(script, *arguments):
    """Runs a shell script as root of its own mounts; skips where that is not allowed."""
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no mount namespaces here")
    return subprocess.run(["unshare", "-m", "sh", "-euc", script, "sh", *map(str, arguments)],
                          capture_output=True, timeout=120)


@pytest.mark.parametrize("old", [True, False])
def test_read_only_file_system(directory, old):
    path = directory / "vgpu.db"
    old_file(path, 2)
    if not old:
        assert admin(path, *CHANGE).returncode == 0
    before = path.read_bytes()
    script = """
        mount --bind "$1" "$1"
        mount -o remount,ro,bind "$1"
        "$2" --db "$1/vgpu.db" --admin-socket /nonexistent --json list-vms
        if "$2" --db "$1/vgpu.db" --admin-socket /nonexistent set-priority --all --priority=high
        then exit 99; else exit $?; fi"""
    done = in_namespace(script, directory, ADMIN)
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)["vms"]) == 2
    assert b"read-only" in done.stderr and str(path).encode() in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("free_kib", [0, 4, 40, 200])
def test_full_disk_during_an_upgrade(directory, free_kib):
    """Room for nothing, for a little, for half of it: the file stays as it was."""
    path = directory / "original.db"
    old_file(path, 1000, TRIAL)
    before = rows(path)
    script = """
        mount -t tmpfs -o size=2m none "$1/small"
        cp "$1/original.db" "$1/small/vgpu.db"
        dd if=/dev/zero of="$1/small/filler" bs=1k count=4096 2>/dev/null || :
        truncate -s -"$3"K "$1/small/filler"
        rc=0
        "$2" --db "$1/small/vgpu.db" --admin-socket /nonexistent \
            set-enabled --pool=A --enabled=yes || rc=$?
        cp "$1/small/vgpu.db" "$1/after.db"
        ls -A "$1/small" > "$1/names"
        rm "$1/small/filler"
        "$2" --db "$1/small/vgpu.db" --admin-socket /nonexistent \
            set-enabled --pool=A --enabled=yes
        cp "$1/small/vgpu.db" "$1/later.db"
        exit $rc"""
    (directory / "small").mkdir()
    done = in_namespace(script, directory, ADMIN, free_kib)
    assert done.returncode == 1, done.stderr
    assert b"disk is full" in done.stderr
    assert version(directory / "after.db") == 0 and rows(directory / "after.db") == before
    names = (directory / "names").read_text().split()
    assert [name for name in names if "part" in name or "journal" in name] == []
    assert version(directory / "later.db") == 4 and rows(directory / "later.db") == before


def test_full_disk_during_a_change(directory):
    script = """
        mount -t tmpfs -o size=1m none "$1/small"
        "$2" --db "$1/small/vgpu.db" --admin-socket /nonexistent set-enabled --pool=A --enabled=no
        dd if=/dev/zero of="$1/small/filler" bs=1k count=4096 2>/dev/null || :
        if "$2" --db "$1/small/vgpu.db" --admin-socket /nonexistent \
            set-enabled --pool=A --enabled=yes
        then exit 99; fi
        "$2" --db "$1/small/vgpu.db" --admin-socket /nonexistent --json show-pool --pool=A"""
    (directory / "small").mkdir()
    done = in_namespace(script, directory, ADMIN)
    assert done.returncode == 0, done.stderr
    assert b"disk is full" in done.stderr
    assert json.loads(done.stdout[done.stdout.index(b"{"):])["enabled"] is False


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_garbage_is_left_alone(directory, content):
    path = directory / "vgpu.db"
    path.write_bytes(content)
    for arguments in (CHANGE, ("list-vms",)):
        done = admin(path, *arguments)
        assert done.returncode == 1 and str(path).encode() in done.stderr
    assert path.read_bytes() == content
    assert [p.name for p in directory.iterdir()] == ["vgpu.db"]


def test_newer_is_left_alone(directory):
    path = directory / "vgpu.db"
    old_file(path, 3)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 5")
    db.close()
    before = path.read_bytes()
    for arguments in (CHANGE, ("list-vms",), ("export",)):
        done = admin(path, *arguments)
        assert done.returncode == 1
        assert b"version 5" in done.stderr and b"left untouched" in done.stderr
    assert path.read_bytes() == before
    assert [p.name for p in directory.iterdir()] == ["vgpu.db"]


def test_a_file_in_wal_mode_comes_back(directory):
    path = directory / "vgpu.db"
    old_file(path, 3)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    assert admin(path, *CHANGE).returncode == 0
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
    db.close()
    assert version(path) == 4


def test_missing_directory(directory):
    path = directory / "none" / "vgpu.db"
    done = admin(path, *CHANGE)
    assert done.returncode == 1
    assert b"there is no directory" in done.stderr and str(path.parent).encode() in done.stderr


def test_a_directory_that_cannot_be_read(directory):
    """It cannot be synced, but what is committed is done, and the mediator hears of it."""
    path = directory / "vgpu.db"
    old_file(path, 1)
    user = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "extra_groups": []}
        for file in (directory, path):
            shutil.chown(file, "nobody")
    directory.chmod(0o333)
    try:
        done = admin(path, "--json", "set-weight", "--all", "--weight=2", **user)
        backup = admin(path, "backup", directory / "copy.db", **user)
    finally:
        directory.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mediator"] == "not running"
    assert json.loads(admin(path, "--json", "list-vms").stdout)["vms"][0]["weight"] == 2.0
    assert backup.returncode == 0 and rows(directory / "copy.db") == rows(path)
    for said in (done.stderr, backup.stderr):
        assert b"cannot be synced (Permission denied)" in said and b"memory" not in said


def small_files(size):
    """For subprocess: no file may grow beyond that, and nobody has asked for a signal."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


def test_a_limit_on_file_sizes(directory):
    """As where a disk is full: an error that says so, nothing changed, nothing left half."""
    path = directory / "vgpu.db"
    old_file(path, 3000)
    assert admin(path, *CHANGE).returncode == 0
    for file in backups(path):
        file.unlink()
    before, content = rows(path), path.read_bytes()
    limit = small_files(64 * 1024)
    done = admin(path, "set-priority", "--all", "--priority=high", **limit)
    assert done.returncode == 1
    assert b"limit on the size of files" in done.stderr and str(path).encode() in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == b""
    assert rows(path) == before and path.read_bytes() == content
    for command, name in (("backup", "copy.db"), ("export", "all.json")):
        done = admin(path, command, directory / name, **limit)
        assert done.returncode == 1
        assert b"limit on the size of files" in done.stderr or b"File too large" in done.stderr
    assert admin(path, "export", directory / "all.json").returncode == 0
    done = admin(path, "import", directory / "all.json", **limit)
    assert done.returncode == 1 and b"nothing was imported" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert sorted(file.name for file in directory.iterdir()) == ["all.json", "vgpu.db"]


def test_an_upgrade_that_fails_leaves_nothing(directory):
    """However often it is tried: the file is as it was, and no copies of it pile up."""
    path = directory / "vgpu.db"
    old_file(path, 10, TRIAL)
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE vms_upgraded (taken)")
    db.close()
    content = path.read_bytes()
    for _ in range(3):
        done = admin(path, *CHANGE)
        assert done.returncode == 1 and b"vms_upgraded" in done.stderr
        assert path.read_bytes() == content
        assert [file.name for file in directory.iterdir()] == ["vgpu.db"]


ODD_NAMES = ["it's \"q\"\n\t", "x" * 1000, b"\xff\xfe bad", "", None, b"a\0b", "'; DROP TABLE vms; --"]
EXTRAS = """
CREATE TABLE log (what TEXT);
CREATE TABLE notes (vm TEXT REFERENCES vms(vm_uuid), text TEXT);
INSERT INTO notes SELECT vm_uuid, vm_name FROM vms;
CREATE VIEW heavy AS SELECT vm_name, weight FROM vms WHERE weight > 3;
CREATE TRIGGER born AFTER INSERT ON vms BEGIN INSERT INTO log VALUES ('born ' || new.vm_id); END;
CREATE TRIGGER stays BEFORE DELETE ON vms BEGIN SELECT RAISE(ABORT, 'no'); END;
CREATE TRIGGER shift AFTER UPDATE ON pools BEGIN INSERT INTO log VALUES ('pool'); END;
CREATE TRIGGER by_view INSTEAD OF UPDATE ON heavy BEGIN
  UPDATE vms SET weight = new.weight WHERE vm_name = old.vm_name; END;
CREATE UNIQUE INDEX of_own ON vms(vm_name, vm_id);
CREATE INDEX of_some ON vms(weight) WHERE weight > 3;
"""
OWN = ", owner TEXT COLLATE NOCASE DEFAULT 'nobody', rack INTEGER NOT NULL DEFAULT 7"


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
@pytest.mark.parametrize("further", [OWN, TRIAL + OWN,
                                     TRIAL.replace("weight INTEGER", "weight TEXT") + OWN,
                                     TRIAL.replace("weight INTEGER", "weight REAL") + OWN],
                         ids=["phase2", "trial", "trial-text", "trial-real"])
def test_an_upgrade_keeps_what_others_put_there(directory, further, encoding):
    """Rows with odd names, columns, indexes, triggers, views and tables of somebody else."""
    path = directory / "vgpu.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA encoding = '{encoding}'")
    db.executescript(SCHEMA.format(further=further))
    for number, name in enumerate(ODD_NAMES, 1):
        text = name.encode() if isinstance(name, str) else name
        db.execute("INSERT INTO vms (vm_id, vm_uuid, vm_name, owner) VALUES (?, ?, CAST(? AS TEXT), ?)",
                   (number, uuid(number), text, f"owner {number}"))
    db.executescript(EXTRAS if "weight" in further else EXTRAS.replace("weight", "priority"))
    db.close()
    same = ("vm_id, vm_uuid, typeof(vm_name), hex(vm_name), pool_id, priority, created_at, "
            "updated_at, owner, rack")

    def held(file):
        db = sqlite3.connect(file)
        found = [db.execute(f"SELECT {same} FROM vms ORDER BY vm_id").fetchall(),
                 db.execute("SELECT vm, hex(text) FROM notes ORDER BY vm").fetchall(),
                 db.execute("SELECT * FROM log").fetchall(),
                 set(db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND "
                                "name IN ('log', 'notes', 'heavy', 'born', 'stays', 'shift', 'by_view',"
                                " 'of_own', 'of_some', 'idx_vm_uuid', 'idx_vm_pool')"))]
        db.close()
        return found

    before = held(path)
    assert len(before[3]) == 11
    done = admin(path, "set-vm-id", f"--vm-uuid={uuid(1)}", "--vm-id=1")
    assert done.returncode == 0, done.stderr
    backup, = backups(path)
    after = held(path)
    # That change has touched the time of its row, as it should.
    assert [row[:7] + row[8:] for row in after[0]] == [row[:7] + row[8:] for row in before[0]]
    assert after[1:] == before[1:] and held(backup) == before
    assert (version(path), version(backup)) == (4, 0)
    # They still do what they did.
    done = admin(path, "register-vm", f"--vm-uuid={uuid(99)}", "--name=new")
    assert done.returncode == 0, done.stderr
    db = sqlite3.connect(path)
    assert db.execute("SELECT * FROM log").fetchall() == [("born 8",)]
    assert db.execute("SELECT owner, rack, weight FROM vms WHERE vm_id = 8").fetchall() == \
        [("nobody", 7, 1.0)]
    db.close()
    done = admin(path, "remove-vm", f"--vm-uuid={uuid(99)}")
    assert done.returncode == 1 and uuid(99).encode() in done.stderr

# SPDX-License-Identifier: MIT
"""The rules of the source that no ready-made tool knows. tools/check calls it.

Usage: check_source.py layers|licences|sizes|words

layers    each room includes only what it may (docs: the layers of the architecture)
licences  every source file names its licence, and the right one, at its head
sizes     no file over 650 lines (900 in tests/, whose cases are a flat list), no C function
          over 80
words     no notes to oneself, no paths of somebody's machine

Prints one line per violation; exit status 1 if there was any.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

FILE_LINES_MAX = 650
TEST_FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 80

# Room: the rooms that it may include, itself apart. A name with a file restricts it to that.
LAYERS = {
    "src/base": [],
    "src/proto": ["src/base/util.h", "include/vgpu"],
    "src/core": ["src/base/util.h", "src/base/units.h", "include/vgpu"],
    "src/settings": ["src/base/util.h", "src/core/vm_settings.h", "include/vgpu"],
    "src/registry": ["src/base", "src/settings", "include/vgpu"],
    "src/mediator": ["src/base", "src/proto", "src/core", "src/settings", "src/registry",
                     "include/vgpu"],
    "src/worker": ["src/base", "src/proto", "include/vgpu"],
    "src/admin": ["src/base", "src/settings", "src/registry", "include/vgpu"],
    "src/guest": ["src/base/util.h", "src/base/units.h", "src/base/clock.h", "src/proto",
                  "include/vgpu"],
    "src/sim": ["src/base", "src/core", "src/settings", "include/vgpu"],
    "qemu": ["include/vgpu"],
    "include/vgpu": [],
}

# The core decides and never acts: no input, no output, no clock, no threads. It computes in
# integers, which are the same everywhere.
CORE_FORBIDDEN_HEADERS = re.compile(
    r"<(sys/socket|sys/epoll|sys/un|sys/wait|sys/stat|sys/mman|sys/ioctl|sys/timerfd|poll|fcntl|"
    r"unistd|signal|dirent|pthread|threads|spawn|netinet/.*|event2/.*|sqlite3|jansson|ini|time|"
    r"sys/time|math|float)\.h>")
CORE_FORBIDDEN_CALLS = re.compile(
    r"\b(clock_gettime|clock_monotonic_ns|clock_realtime_s|gettimeofday|time|nanosleep|usleep|sleep|"
    r"fopen|fprintf|printf|puts|fputs|fwrite|fread|open|close|read|write|rand|random|getrandom)"
    r" ?\(")

CORE_FORBIDDEN_TYPES = re.compile(r"\b(float|double)\b")

SOURCE_SUFFIXES = {".c", ".h", ".S", ".py", ".ptx", ".sh", ".in"}
COMMENT_START = re.compile(r"^(/\*|//|#)")

NOTES = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.}\"'>)*/])/(?!bin|boot|dev|etc|lib|mnt|nonexistent|opt|proc|run|sbin|srv|sys|tmp|usr|"
                           r"var)\w+/\w")
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".md", ".build", ".1", ".5", ".7", ".8", ".yml", ".yaml", ".ini",
                                   ".conf", ".service", ".json"}


def files():
    """Every file of the tree that git tracks or would track."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT,
                            capture_output=True, check=True).stdout
    for name in sorted(set(listed.decode().split("\0"))):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            yield pathlib.PurePosixPath(name), path


def is_script(path):
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def read(path):
    return path.read_text(errors="replace")


# ---- Layers -------------------------------------------------------------------


def room_of(name):
    for room in LAYERS:
        if str(name).startswith(room + "/"):
            return room
    return None


def resolve(name, include):
    """The file of the project that an #include "..." means, as a path from the root."""
    for base in (name.parent, pathlib.PurePosixPath("src"), pathlib.PurePosixPath("include")):
        candidate = pathlib.PurePosixPath(*(base / include).parts)
        if (ROOT / candidate).is_file():
            return (ROOT / candidate).resolve().relative_to(ROOT).as_posix()
    return None


def check_layers():
    for name, path in files():
        room = room_of(name)
        if room is None or name.suffix not in (".c", ".h", ".S"):
            continue
        allowed = [room, *LAYERS[room]]
        for number, line in enumerate(read(path).splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            target = resolve(name, found.group(1)) if found else None
            if target and not any(target == one or target.startswith(one + "/")
                                  for one in allowed):
                yield f"{name}:{number}: {room} must not include {target}"
            if room == "src/core":
                yield from check_core_line(name, number, line)


def check_core_line(name, number, line):
    if CORE_FORBIDDEN_HEADERS.search(line):
        yield f"{name}:{number}: the core has no I/O, clock, threads or fractions: {line.strip()}"
    code = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    if not code.lstrip().startswith(("*", "/*", "#")) and CORE_FORBIDDEN_CALLS.search(code):
        yield f"{name}:{number}: the core must not call this: {line.strip()}"
    if CORE_FORBIDDEN_TYPES.search(re.sub(r"/\*.*|^\s*\*.*", "", code)):
        yield f"{name}:{number}: the core computes in integers: {line.strip()}"


# ---- Licences -----------------------------------------------------------------


def wanted_licence(name):
    """GPL for what is compiled only into QEMU, MIT for all else."""
    qemu_only = name.parts[0] == "qemu" and name.suffix in (".c", ".h")
    return "GPL-2.0-or-later" if qemu_only else "MIT"


def check_licences():
    for name, path in files():
        source = name.suffix in SOURCE_SUFFIXES or name.name == "meson.build" or is_script(path)
        if not source or "corpus" in name.parts:
            continue
        head = read(path).splitlines()[:2]
        if head and head[0].startswith(("#!", "# shellcheck ")):
            head = head[1:]
        wanted = f"SPDX-License-Identifier: {wanted_licence(name)}"
        line = head[0].removesuffix(" */").rstrip() if head else ""
        if not COMMENT_START.match(line) or not line.endswith(wanted):
            yield f"{name}:1: its first line must say {wanted}"


# ---- Sizes --------------------------------------------------------------------


def functions(lines):
    """(first line, last line, name) of each C function, by the braces in the first column."""
    start = name = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{") and start is None:
            start = number
            head = " ".join(lines[max(0, number - 6):number - 1])
            found = re.findall(r"(\w+)\s*\(", head)
            name = found[-1] if found else "?"
        elif line.startswith("}") and start is not None:
            yield start, number, name
            start = None


def check_sizes():
    for name, path in files():
        if name.suffix not in (".c", ".h", ".py") and not is_script(path):
            continue
        lines = read(path).splitlines()
        limit = TEST_FILE_LINES_MAX if name.parts[0] == "tests" else FILE_LINES_MAX
        if len(lines) > limit:
            yield f"{name}: {len(lines)} lines, more than {limit}: what is its second duty?"
        if name.suffix in (".c", ".h"):
            for start, end, function in functions(lines):
                if end - start + 1 > FUNCTION_LINES_MAX:
                    yield (f"{name}:{start}: {function}() has {end - start + 1} lines, more than "
                           f"{FUNCTION_LINES_MAX}")


# ---- Words --------------------------------------------------------------------


def check_words():
    for name, path in files():
        text = name.suffix in TEXT_SUFFIXES or name.suffix == ""
        if not text or "corpus" in name.parts or name.name == pathlib.Path(__file__).name:
            continue
        content = read(path)
        if "\0" in content:
            continue
        for number, line in enumerate(content.splitlines(), 1):
            for pattern, what in ((NOTES, "a note to oneself"), (MACHINE_PATHS, "a machine's path")):
                if pattern.search(line):
                    yield f"{name}:{number}: {what}: {line.strip()}"


CHECKS = {"layers": check_layers, "licences": check_licences, "sizes": check_sizes,
          "words": check_words}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: check_source.py {'|'.join(CHECKS)}")
    violations = list(CHECKS[sys.argv[1]]())
    for violation in violations:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""What docs, manual pages and deploy/ say must be what the programs do.

Nothing here reads prose: tables of keys, names of commands, methods and metrics. The
programs are asked for theirs, so that a key, command, method or metric without a word
about it fails, and so does a word about one that is gone.
"""

import importlib.util
import json
import re
import subprocess

import pytest

import mediator as harness
from paths import ADMIN, CLIENT, MEDIATOR, ROOT, SIM, WORKER

EXAMPLE = ROOT / "deploy" / "mediator.conf"
LIMIT_S = 60

UNSET = "empty"  # how configuration.md writes a default that is no value
NOT_LIVE = "takes effect when the mediator is restarted"


def run(*command, status=0):
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert result.returncode == status, (command, result.stdout, result.stderr)
    return result.stdout + result.stderr


def page(name):
    return (ROOT / name).read_text()


def table_rows(text, columns):
    """The rows of markdown tables of that width whose first cell is one name in code."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        name = re.fullmatch(r"`([^`]+)`", cells[0])
        if line.startswith("|") and len(cells) == columns and name:
            yield [name.group(1), *cells[1:]]


def shown_config(*arguments):
    """What --show-config prints, as a dictionary in its order."""
    lines = run(MEDIATOR, *arguments, "--show-config").splitlines()
    return {key: value for key, value in (re.split(r" = ?", line, maxsplit=1) for line in lines)}


@pytest.fixture(scope="module")
def defaults():
    return shown_config("--config", "/dev/null")


@pytest.fixture(scope="module")
def documented():
    """Of each key: (default, range, when it takes effect), as configuration.md has them."""
    rows = list(table_rows(page("docs/configuration.md"), 5))
    keys = {key: (default, span, effect) for key, default, span, effect, _ in rows}
    assert len(keys) == len(rows), "a key has two rows"
    return keys


# ---- The configuration --------------------------------------------------------


def test_every_key_has_its_row(defaults, documented):
    assert set(documented) == set(defaults)


def test_defaults_are_right(defaults, documented):
    for key, (default, _, _) in documented.items():
        said = default.strip("`")
        if defaults[key] == "":
            assert said in ("off", "none") or said.startswith(UNSET), key
        else:
            assert said == defaults[key], key


def test_ranges_are_right(documented):
    for key, (_, span, _) in documented.items():
        # Nothing at all is wrong for every key, and the complaint says what would be right.
        complaint = run(MEDIATOR, "--set", f"{key}=", "--show-config", status=2)
        allowed = re.search(rf"{re.escape(key)} = : must be (.*)", complaint)
        assert allowed, (key, complaint)
        if "a path" in allowed.group(1):
            assert "path" in span, key
        numbers = re.search(r"([\d.]+) to ([\d.]+)", allowed.group(1))
        choices = re.search(r"one of (.*)|(yes or no)", allowed.group(1))
        if numbers:
            assert span.startswith(f"{numbers.group(1)} to {numbers.group(2)}"), key
        elif choices:
            words = (choices.group(1) or "yes no").split()
            assert re.findall(r"`(\w+)`", span) == words, key


def other_value(key, value):
    """A value that @key may have and that is not @value."""
    choices = {"backend": "auto", "log_level": "debug", "allow_test_ops": "yes"}
    if key in choices:
        return choices[key]
    if re.fullmatch(r"\d+\.\d+", value):
        return "0.25"
    if value.isdigit():
        return str(int(value) + 1)
    return "0" if key.endswith(".gpus") else "/tmp/vgpu-other"


def test_live_keys_are_those_that_say_so(directory, defaults, documented):
    """Changes every key under a running mediator, which tells what it takes over."""
    path = directory / "mediator.conf"
    before = {
        **{key: value for key, value in defaults.items() if value != ""},
        "db": directory / "v.db",
        "listen_dir": directory / "vm",
        "admin_socket": directory / "admin.sock",
        "backend": "cpu",
    }
    after = {key: other_value(key, str(before.get(key, ""))) for key in defaults}

    def write(values):
        path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))

    write(before)
    with subprocess.Popen(
        [str(MEDIATOR), "--config", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            write(after)
            answer = run(
                ADMIN, "--admin-socket", before["admin_socket"], "--json", "reload-config"
            )
        finally:
            process.terminate()
            process.wait(LIMIT_S)
    reload = json.loads(answer)
    assert reload["errors"] == []
    changed = {line.split(":", 1)[0]: NOT_LIVE not in line for line in reload["changed"]}
    assert set(changed) == set(defaults), "a key was not changed"
    for key, (_, _, effect) in documented.items():
        assert effect == ("live" if changed[key] else "restart"), key


def test_example_has_every_key_with_its_default(directory, defaults):
    settings = re.findall(r"^#([\w.]+) = (.*)$", EXAMPLE.read_text(), re.M)
    assert sorted(key for key, _ in settings) == sorted(defaults)
    path = directory / "mediator.conf"
    path.write_text("".join(f"{key} = {value}\n" for key, value in settings))
    accepted = shown_config("--config", path)
    for key, value in settings:
        if not key.endswith(".gpus"):
            assert accepted[key] == defaults[key], (key, value)


def test_example_sets_nothing(defaults):
    assert shown_config("--config", EXAMPLE) == defaults


# ---- Commands, methods, metrics --------------------------------------------------


def bold_words(name):
    """The words that a manual page sets in bold, with roff's hyphens made plain."""
    lines = re.findall(r"^\.BR? (.*)$", page(name).replace("\\-", "-"), re.M)
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", " ".join(lines)))


def test_every_admin_command_is_in_the_manual():
    commands = run(ADMIN, "help").split("Commands:\n", 1)[1].split("\n\n", 1)[0]
    names = re.findall(r"^  ([\w-]+) ", commands, re.M)
    assert "status" in names and len(names) > 20
    assert set(names) - bold_words("man/vgpu-admin.1") == set()


def test_commands_in_the_docs_exist():
    pages = ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in (
        "configuration", "operations", "protocol", "scheduling"))]
    for text in map(page, pages):
        for name in re.findall(r"vgpu-admin ([a-z][a-z-]+)", text):
            run(ADMIN, "help", name)


@pytest.mark.parametrize("program,section", [(MEDIATOR, 8), (WORKER, 8), (CLIENT, 1), (SIM, 1)],
                         ids=lambda value: getattr(value, "name", None))
def test_every_option_is_in_the_manual(program, section):
    options = set(re.findall(r"--[a-z-]+", run(program, "--help")))
    manual = page(f"man/{program.name}.{section}").replace("\\-", "-")
    assert len(options) > 5
    assert {option for option in options if option not in manual} == set()


def test_every_key_of_a_scenario_is_in_the_manual():
    keys = re.findall(r'^\t(?:\{|EXPECT\()"([a-z0-9-]+)"', page("src/sim/scenario_keys.c"), re.M)
    settings = re.findall(r'^\t\[SETTING_\w+\] = \{\{"([a-z-]+)", ', page("src/settings/settings.c"),
                          re.M)
    assert len(keys) > 30 and len(settings) > 5
    manual = page("man/vgpu-sim.1").replace("\\-", "-")
    assert {key for key in keys + settings if key not in manual} == set()


def test_methods_of_the_admin_socket(mediator):
    methods = mediator.call("help")
    told = page("docs/protocol.md").split("## 5. The admin socket", 1)[1]
    assert {row[0] for row in table_rows(told, 3)} == set(methods)


def test_params_of_vm_set(mediator):
    """The table has what the method takes, with the range that it names when it refuses."""
    uuid = mediator.add_vm()
    told = page("docs/protocol.md").split("`vm-set` takes these", 1)[1].split("\n\n0 takes", 1)[0]
    rows = dict(table_rows(told, 2))
    assert len(rows) == 9
    for name, span in rows.items():
        try:
            mediator.call("vm-set", vm_uuid=uuid, **{name: "no value"})
        except harness.Refusal as refusal:
            said = str(refusal)
        plain = span.replace("`", "")
        words = plain.split(", ") if plain.startswith('"') else [plain.split(" ")[0], plain.split(" ")[2]]
        for word in words:
            assert word in said, (name, said)


def test_metrics(mediator):
    mediator.add_vm()
    text = mediator.call("show-metrics")["text"]
    served = set(re.findall(r"^# TYPE (\w+) ", text, re.M))
    told = page("docs/operations.md").split("## Metrics", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in told.splitlines() if line.startswith("| `")]
    names = re.findall(r"`((?:vgpu|process)_\w+)", " ".join(row.split(" | ")[0] for row in rows))
    assert set(names) == served


def test_lines_of_an_event_log(tmp_path):
    """The table has every kind of line, with as many numbers as vgpu-sim wants."""
    told = page("docs/protocol.md").split("## 6. Event logs", 1)[1]
    groups = re.findall(r"^- (\*\w+\*): (\w+(?:\s(?:  )?\w+)+)$", told, re.M)
    log = tmp_path / "events"

    def problem(line):
        log.write_text(f"vgpu-events 2 x\n{line}\n")
        found = json.loads(run(SIM, "--json", "--replay", log, status=1).splitlines()[0])
        return found["problem"]["text"], set(found["events"])

    rows = dict(table_rows(told, 2))
    assert set(rows) == problem("tick 1")[1] | {"check", "end"}
    for name, numbers in rows.items():
        for group, members in groups:
            numbers = numbers.replace(group, members)
        count = len(numbers.split())
        assert "numbers than" not in problem(name + count * " 1")[0], name
        assert "more numbers" in problem(name + (count + 1) * " 1")[0], name


def test_layers():
    """The rooms of the table, and what each may use, are what tools/check looks at."""
    path = ROOT / "tools" / "check_source.py"
    spec = importlib.util.spec_from_file_location("check_source", path)
    check_source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_source)
    table = page("docs/architecture.md").split("## Layers", 1)[1].split("\n## ", 1)[0]
    told = {row[0]: set(re.findall(r"`([\w/]+)`", row[1])) for row in table_rows(table, 3)}
    looked_at = {room: {"/".join(used.split("/")[:2]) for used in rooms} - {"include/vgpu"}
                 for room, rooms in check_source.LAYERS.items()}
    assert told == looked_at


# ---- Links and files ---------------------------------------------------------------


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
assert len(PAGES) >= 7, "the pages are somewhere else"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_the_docs_name_exist(path):
    names = re.findall(r"`((?:src|include|qemu|tests|tools|deploy|docs|man)/[\w./*-]+)`",
                       path.read_text())
    for name in names:
        assert list(ROOT.glob(name.rstrip("/"))), name

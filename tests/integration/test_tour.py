# SPDX-License-Identifier: MIT
"""The README's tour: what it says that a command prints is what the command prints.

The commands run in one shell, as a newcomer types them, except for the place of their
files and how long the load lasts. Numbers are compared as numbers, whichever they are.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess

import pytest

from paths import BUILD, ROOT

LIMIT_S = 120
MARK = "-- the tour goes on --"
READY = "until grep -q ready /tmp/tour/log; do kill -0 $! || exit; sleep 0.05; done"


def steps():
    """[command, what it prints] of the tour, in order; a command may have several lines."""
    text = (ROOT / "README.md").read_text()
    tour = text[text.index("## Five minutes") : text.index("## Verified on")]
    for block in re.findall(r"^```\n(.*?)^```$", tour, re.M | re.S):
        for step in block.removeprefix("$ ").split("\n$ "):
            command, printed = re.fullmatch(r"((?:.*\\\n)*.*)\n?((?:.*\n?)*)", step).groups()
            yield command, printed


def normalized(text):
    """Without how wide a column or a line is, and with # for a number."""
    return re.sub(r"\b\d+(\.\d+)?\b", "#", " ".join(text.split()))


def run_shell(text):
    """What bash prints; nothing that it has started is left over."""
    with subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as shell:
        try:
            return shell.communicate(text, timeout=LIMIT_S)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.skipif(pathlib.Path("/dev/nvidia0").exists(), reason="a GPU's fault has a CUresult")
def test_the_tour_prints_what_the_readme_says(directory):
    commands, expected = zip(*steps())
    assert len(commands) > 10
    script = ["shopt -s expand_aliases"]
    for command in commands:
        script += [command, f"echo '{MARK}'"]
        if "vgpu-mediator" in command:
            script.append(READY)
    script.append("wait")
    text = "\n".join(script)
    for said, meant in (
        ("cd build/bin && mkdir /tmp/tour", f"cd {BUILD}/bin"),
        ("/tmp/tour", str(directory)),
        ("--seconds 6", "--seconds 2"),
        ("sleep 6", "sleep 2"),
        ("--rate=5 ", "--rate=0.1 "),  # the second ping is too early on a slow machine, too
    ):
        assert said in text
        text = text.replace(said, meant)
    printed = run_shell(text).split(MARK + "\n")[:-1]
    for command, said, seen in zip(commands, expected, printed, strict=True):
        assert normalized(seen) == normalized(said), command

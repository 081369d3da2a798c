# SPDX-License-Identifier: MIT
"""The simulator against measurements of a real GPU: the table "Model against GPU" of
docs/scheduling.md says what vgpu-sim makes of the measured loads, and how far off that is."""

import json
import re
import subprocess

import pytest

from paths import ROOT, SIM

FAR_OFF_PERCENT = 15

BUSY = """
[scenario]
duration-ms = 5000
quantum-us = {quantum_us}
[vm]
load = closed
think-us = 20
outstanding = {outstanding}
length-us = 100
count = 4
"""
LIGHT = """
[scenario]
duration-ms = 60000
warmup-ms = 5000
[light]
load = periodic
period-us = 5000
length-us = 100
counts = wait
[neighbour]
outstanding = 2
length-us = {us}
count = {count}
"""
LIGHT_MS = 0.1
HANG = """
[scenario]
duration-ms = 80000
warmup-ms = 2000
[pipelined]
load = closed
outstanding = 4
think-us = 20
length-us = 1000
count = 2
[synchronous]
load = closed
outstanding = 1
think-us = 20
length-us = 1000
count = 2
[light]
load = periodic
period-us = 5000
length-us = 100
counts = wait
[hang]
load = closed
outstanding = 1
length-us = 1000
counts = nothing
join-us = 1000000
timeout = 300000
event = 1000000us hang
"""


def simulate(directory, text, policy):
    path = directory / "case.ini"
    path.write_text(text)
    done = subprocess.run([SIM, "--json", "--policy", policy, path], capture_output=True,
                          timeout=120, check=True)
    return json.loads(done.stdout)["figures"]


def busy(directory, policy, outstanding):
    quanta = [1000, 2000, 4000, 8000] if policy == "fair" else [4000]
    return [simulate(directory, BUSY.format(quantum_us=quantum, outstanding=outstanding),
                     policy)["busy-percent"] for quantum in quanta]


def waits(directory, policy, text, beyond_ms):
    figures = simulate(directory, text, policy)
    return [figures["wait-p50-ms"] + beyond_ms, figures["wait-p99-ms"] + beyond_ms]


def light(count, us):
    """What it waits beyond what it does when nobody else is there: sockets are not modelled."""
    text = LIGHT.format(count=count, us=us)

    def case(directory):
        alone, _ = waits(directory, "fair", text.partition("[neighbour]")[0], 0)
        return waits(directory, "fair", text, -alone)

    return case


def light_on_the_driver(count, us):
    return lambda directory: waits(directory, "driver", LIGHT.format(count=count, us=us), LIGHT_MS)


CASES = {
    "four VMs, 100 µs jobs, 16 out each": lambda d: busy(d, "fair", 16),
    "the same on the driver": lambda d: busy(d, "driver", 16),
    "four VMs, 100 µs jobs, one at a time": lambda d: busy(d, "fair", 1),
    "one at a time on the driver": lambda d: busy(d, "driver", 1),
    "light VM beside 1 × 1 ms": light(1, 1000),
    "light VM beside 1 × 20 ms": light(1, 20000),
    "light VM beside 1 × 500 ms": light(1, 500000),
    "light VM beside 8 × 1 ms": light(8, 1000),
    "light VM beside 8 × 20 ms": light(8, 20000),
    "light VM beside 8 × 500 ms": light(8, 500000),
    "light, driver, beside 1 × 20 ms": light_on_the_driver(1, 20000),
    "light, driver, beside 8 × 1 ms": light_on_the_driver(8, 1000),
    "light, driver, beside 8 × 20 ms": light_on_the_driver(8, 20000),
    "light, driver, beside 8 × 500 ms": light_on_the_driver(8, 500000),
    "four VMs beside a hang": lambda d: [simulate(d, HANG, "fair")["kept-percent"]],
    "the same hang on the driver": lambda d: [simulate(d, HANG, "driver")["kept-percent"]],
    "light VM beside that hang": lambda d: waits(d, "fair", HANG, LIGHT_MS),
    "light, driver, beside that hang": lambda d: waits(d, "driver", HANG, LIGHT_MS),
}


def table():
    """{case: (model, GPU, difference in percent)}, each a list of texts."""
    text = (ROOT / "docs/scheduling.md").read_text()
    _, _, section = text.partition("\n## Model against GPU\n")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([0-9./ ]+) \| ([0-9./ ]+) \| ([^|]+) % \|$",
                      section.partition("\n## ")[0], re.MULTILINE)
    return {case: [cell.split(" / ") for cell in cells] for case, *cells in rows}


def test_the_table_has_all_cases():
    assert list(table()) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_as_the_table_says(directory, case):
    told, measured, off = table()[case]
    figures = CASES[case](directory)
    assert len(figures) == len(told) == len(measured) == len(off)
    for figure, text, gpu, percent in zip(figures, told, measured, off):
        digits = len(text.partition(".")[2])
        assert f"{figure:.{digits}f}" == text
        difference = 100 * (float(text) / float(gpu) - 1)
        assert int(percent.replace("−", "-").replace("+", "")) == round(difference)
        assert abs(difference) <= FAR_OFF_PERCENT

# SPDX-License-Identifier: MIT
"""vgpu-sim on its command line: what it prints, draws and refuses."""

import json
import re
import subprocess
import xml.etree.ElementTree

import pytest

from paths import SIM

LIMIT_S = 60
SVG = "{http://www.w3.org/2000/svg}"

TWO = """
[scenario]
name = two
duration-ms = 1000
{scenario}
[a<b&"c]
weight = 3
[late]
{late}
"""


def sim(*arguments, status=0):
    done = subprocess.run([SIM, *map(str, arguments)], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


@pytest.fixture
def scenario(tmp_path):
    """scenario(text) is the path of a file with it; or give parts of TWO."""

    def write(text=TWO, **parts):
        path = tmp_path / "scenario.ini"
        path.write_text(text.format(**{"scenario": "", "late": "weight = 1", **parts}))
        return path

    return write


def runs(*arguments, status=0):
    return [json.loads(line) for line in sim("--json", *arguments, status=status).stdout.splitlines()]


def test_json(scenario):
    (run,) = runs(scenario())
    assert (run["scenario"], run["policy"]) == ("two", "fair")
    assert run["figures"]["busy-percent"] > 90
    assert run["figures"]["share-error-percent"] < 2
    first, second = run["vms"]
    assert first["vm"] == 'a<b&"c'
    assert first["charged_ns"] == pytest.approx(3 * second["charged_ns"], rel=0.05)
    assert first["due_ns"] == pytest.approx(first["charged_ns"], rel=0.05)
    assert first["jobs"] > 500 and first["wait_p99_ns"] > 0
    assert run["turns"] > 0 and run["jobs_sent"] >= first["jobs"] + second["jobs"]


def test_every_policy_side_by_side(scenario):
    policies = [run["policy"] for run in runs("--compare", scenario())]
    assert policies == ["fair", "exclusive", "driver", "urgency"]


def test_what_is_due_follows_gpus_weights_and_who_is_there(scenario):
    alone = "gpus = 2"
    (run,) = runs(scenario(scenario=alone, late="pool = B"))
    assert run["figures"]["share-error-percent"] < 0.1
    (run,) = runs(scenario(late="join-us = 500000\nleave-us = 700000\nevent = 600000us weight 3"))
    assert run["figures"]["share-error-percent"] < 8
    assert run["vms"][1]["due_ns"] == pytest.approx(1e8 / 4 + 1e8 / 2, rel=0.1)


def test_picture(scenario, tmp_path):
    sim("--svg", tmp_path / "picture.svg", scenario())
    root = xml.etree.ElementTree.parse(tmp_path / "picture.svg").getroot()
    names = [element.text for element in root.iter(f"{SVG}title")]
    assert sorted(names) == ['a<b&"c', "late"]
    # Every area goes from edge to edge.
    frame = [element for element in root.iter(f"{SVG}rect") if element.get("fill") == "none"][0]
    left = float(frame.get("x"))
    for area in (path for path in root.iter(f"{SVG}path") if path.get("fill")):
        xs = [float(x) for x in re.findall(r"H([0-9.]+)", area.get("d"))]
        assert (min(xs), max(xs)) == (left, left + float(frame.get("width")))
    assert "No such file" in sim("--svg", tmp_path / "no" / "x.svg", scenario(), status=1).stderr


@pytest.mark.parametrize("how", [[], ["--json"], ["--policy", "fair"], ["--compare"],
                                 ["--json", "--policy", "fair"], ["--seeds", "3"]])
def test_expectations_are_looked_at_however_it_is_called(scenario, how):
    met = scenario(scenario="[expect fair]\nbusy-percent = 90..\nfailed-jobs = ..0")
    sim("--expect", *how, met)
    missed = scenario(scenario="[expect fair]\nbusy-percent = ..90")
    assert "two, fair, seed 1: busy-percent is 9" in sim("--expect", *how, missed, status=1).stderr
    sim(*how, missed)


def test_expectations_of_other_policies(scenario):
    path = scenario(scenario="[expect driver]\nshare-error-percent = ..1")
    assert "two, driver" in sim("--expect", path, status=1).stderr
    sim("--expect", "--policy", "fair", path)


def test_a_scenario_that_expects_nothing(scenario):
    assert "nothing is expected" in sim("--expect", scenario(), status=1).stderr


def test_a_vm_that_never_runs_has_waited(scenario):
    late = "load = periodic\ncounts = wait\n"
    text = "worker-start-us = {}\n[expect fair]\nwait-p99-ms = ..50"
    sim("--expect", scenario(scenario=text.format(0), late=late))
    never = sim("--expect", scenario(scenario=text.format(30000000), late=late), status=1)
    assert "wait-p99-ms is 9" in never.stderr
    nothing = scenario(scenario=text.format(0), late=late + "period-us = 1000000000\n")
    assert "has had no job" in sim("--expect", nothing, status=1).stderr


def test_a_hang_is_seen_by_the_vm_whose_jobs_fail(scenario):
    text = "job-timeout-ms = 100\n[expect fair]\nfailed-jobs = ..0"
    failed = sim("--expect", scenario(scenario=text, late="event = 500000us hang"), status=1)
    assert "failed-jobs is" in failed.stderr


def test_random_scenarios(tmp_path):
    said = sim("--random", 2, "--seed", 7).stdout
    assert "2 scenarios, each twice" in said and "largest part used of bound 1:" in said
    shown = tmp_path / "shown.ini"
    shown.write_text(sim("--show", "--seed", 7).stdout)
    assert "random-7" in sim("--check", shown).stdout


@pytest.mark.parametrize("arguments", [[], ["--no-such-option"], ["--policy", "best", "x.ini"],
                                       ["--seeds", "some", "x.ini"], ["--random", "-1"],
                                       ["--seeds", "0", "x.ini"], ["--seed", "3", "x.ini"],
                                       ["--random", "2", "x.ini"], ["--pick-cost", "x.ini"],
                                       ["--replay", "events", "x.ini"]])
def test_wrong_options(arguments):
    done = sim(*arguments, status=2)
    assert "vgpu-sim: " in done.stderr and not done.stdout


def test_a_file_that_is_wrong_or_missing(scenario, tmp_path):
    said = sim(scenario(late="weight = 0"), status=1).stderr
    assert "scenario.ini:9: weight = 0: must be 1.00 to 100.00" in said
    assert "cannot be read" in sim(tmp_path / "no.ini", status=1).stderr


def test_version():
    assert sim("--version").stdout.startswith("vgpu-sim 0.")

# SPDX-License-Identifier: MIT
"""Counts tests in the reports of meson and pytest, for tools/test.

Usage: count_tests.py STATUS REPORT...

Prints "PASSED FAILED SKIPPED". A report is pytest's JUnit XML or meson's testlog JSON;
in the latter, a program of cmocka counts with the tests in it, any other as one. A
stage that failed (STATUS is not 0) counts as a failure even when no test of it says
so, and so does a report that is cut short; a stage without reports counts as one test.
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree


def count_junit(path):
    passed = failed = skipped = 0
    for suite in xml.etree.ElementTree.parse(path).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skips = int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - skips
        failed += bad
        skipped += skips
    return passed, failed, skipped


def count_program(program):
    """One line of meson's log."""
    output = program.get("stdout", "") + program.get("stderr", "")
    counts = [sum(map(int, re.findall(rf"^\[ *{word} *\] (\d+) test", output, re.M)))
              for word in ("PASSED", "FAILED", "SKIPPED")]
    good = program["result"] in ("OK", "EXPECTEDFAIL")
    if program["result"] == "SKIP":
        return 0, 0, 1
    if good and not sum(counts):
        return 1, 0, 0
    if not good and not counts[1]:
        counts[1] = 1
    return tuple(counts)


def count_meson(path):
    lines = path.read_text().splitlines()
    return tuple(map(sum, zip((0, 0, 0), *(count_program(json.loads(line)) for line in lines))))


def count(path):
    try:
        return count_junit(path) if path.suffix == ".xml" else count_meson(path)
    except (xml.etree.ElementTree.ParseError, ValueError, KeyError) as error:
        print(f"{path} cannot be read: {error}", file=sys.stderr)
        return 0, 1, 0


def main():
    stage_failed = sys.argv[1] != "0"
    reports = [pathlib.Path(name) for name in sys.argv[2:]]
    totals = [0, 0, 0]
    for report in reports:
        if report.exists():
            totals = [total + count for total, count in zip(totals, count(report))]
    if stage_failed and not totals[1]:
        totals[1] = 1
    elif not reports:
        totals[0] = 1
    print(*totals)


if __name__ == "__main__":
    main()

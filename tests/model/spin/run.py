#!/usr/bin/env python3
"""Searches one of the Spin models exhaustively, clean and with each of its planted bugs.

    run.py MODEL [LANE] [-v]       the rows of models.tsv for mutex.pml, say; of one lane: test or soak

A clean row passes when the search ended, complete and without an error, with about the number of states
that the table names: far fewer mean that the model no longer does what it did. A row with a planted bug
passes when the search ends in an error of the kind that the table names. With -v the statements are listed
that a clean search did not reach, and a counterexample is printed step by step.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY_MB = 3900
DEPTH = 2_000_000
SECONDS = {"test": 120, "soak": 600}  # for one search
STATES_FACTOR = 1.25
ERRORS = {"deadlock": "invalid end state", "assertion": "assertion violated"}


@dataclass
class Row:
    model: str
    flags: list
    expected: str  # ok, or a key of ERRORS
    lane: str
    states: int  # 0 for planted bugs

    def __str__(self):
        return " ".join([self.model, *self.flags])


def table():
    rows = []
    for line in (HERE / "models.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            model, flags, expected, lane, states = line.split("\t")
            rows.append(Row(model, [f"-D{flag}" for flag in flags.split()], expected, lane,
                            0 if states == "-" else int(states.replace(",", ""))))
    return rows


def run(command, folder, seconds=120):
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=seconds, check=False)


def search(row, folder):
    """Builds the search in `folder` and runs it. Returns what it printed."""
    for source in HERE.glob("*.pml"):
        shutil.copy(source, folder)
    # Most searches are shorter than their compilation.
    optimise = "-O2" if row.lane == "soak" else "-O1" if row.states > 400_000 else "-O0"
    for command in (["spin", *row.flags, "-a", f"{row.model}.pml"],
                    ["gcc", optimise, "-w", "-DSAFETY", "-DCOLLAPSE", "-DNOFAIR", "-DVECTORSZ=2048",
                     f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"]):
        built = run(command, folder)
        if built.returncode != 0:
            return f"{' '.join(command)}: {built.stdout}"
    try:
        return run(["./pan", f"-m{DEPTH}", "-w20"], folder, SECONDS[row.lane]).stdout
    except subprocess.TimeoutExpired:
        return "out of time"


def judge(row, printed):
    """Returns (what is wrong with the search, or None; how many states it stored)."""
    states = re.search(r"^ *([0-9.e+]+) states, stored", printed, re.MULTILINE)
    errors = re.search(r"errors: (\d+)", printed)
    if states is None or errors is None:
        return f"no search: {printed.strip()[-500:]}", 0
    count = int(float(states.group(1)))
    first = re.search(r"^pan:1: (.*)$", printed, re.MULTILINE)
    if row.expected != "ok":
        if first is None:
            return "the planted bug was not found", count
        return (None if ERRORS[row.expected] in first.group(1) else first.group(1)), count
    if errors.group(1) != "0":
        return first.group(1) if first else "an error", count
    for reason in ("max search depth too small", "reached -DMEMLIM", "Search not completed",
                   "out of memory"):
        if reason in printed:
            return f"the search is not complete: {reason}", count
    if not row.states / STATES_FACTOR <= count <= row.states * STATES_FACTOR:
        return f"about {row.states:,} states were expected", count
    return None, count


def explain(row, printed, folder):
    if row.expected == "ok" and "errors: 0" in printed:
        unreached = printed[printed.find("unreached in"):].splitlines()
        return "\n".join(line for line in unreached if "-end-" not in line and "states)" not in line)
    return run(["spin", *row.flags, "-t", "-p", "-g", f"{row.model}.pml"], folder).stdout


def main():
    words = [word for word in sys.argv[1:] if word != "-v"]
    rows = [row for row in table() if row.model == words[0] and row.lane in (words[1:] or SECONDS)]
    if not rows:
        print(f"no rows for {' '.join(words)} in models.tsv")
        return 1
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed")
            return 77
    failures = 0
    for row in rows:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="weft-spin-") as folder:
            printed = search(row, Path(folder))
            wrong, states = judge(row, printed)
            print(f"{'FAILED' if wrong else 'ok':7}{row}: {row.expected}, {states:,} states, "
                  f"{time.monotonic() - start:.1f} s{f': {wrong}' if wrong else ''}", flush=True)
            if "-v" in sys.argv:
                print(explain(row, printed, folder))
        failures += wrong is not None
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Lanes: the same list of tests, built in different ways.

    python3 tools/lanes.py configure lint
    python3 tools/lanes.py build release [--only examples bench]
    python3 tools/lanes.py test [lane] [pattern...]
    python3 tools/lanes.py soak [lane] [pattern...]

A lane is a compiler, meson options and an environment; it builds in build/<lane>. What a lane leaves
out stands in tests/lanes.tsv with the reason. There are no suppression files.

A run ends with the line "N passed, N failed, N skipped", and above it every skip with its reason. What is
left out of one lane runs in another; it is shown, but is no skip. A test that logs that the runtime fell
back to something lesser fails, unless falling back is its subject (meson suite "fallback").
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FALLBACK_LINE = "weft: fallback:"
SKIP_PREFIX = "skipped: "
# What meson looks for, and builds no test with where it is missing.
OPTIONAL_HEADERS = [Path("/usr/include/relacy/relacy.hpp"), Path("/usr/include/boost/context/fiber.hpp")]


@dataclass
class Lane:
    compiler: str
    options: list
    environment: dict = field(default_factory=dict)
    slowdown: int = 1  # how many times the time limits of the tests are extended
    sanitized: bool = False
    rounds: int = 1  # each with a WEFT_SEED of its own, where there are several; soak lengthens nothing


# Sanitized programs link against symbols that only the final program has (b_lundef). UBSan's check of
# virtual tables opens a pipe for each look, which fails in the tests that leave no descriptor free.
ASAN_OPTIONS = ["-Doptimization=1", "-Ddebug=true", "-Db_sanitize=address,undefined",
                "-Db_lundef=false", "-Dcpp_args=-fno-sanitize=vptr"]
ASAN_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_leaks=1:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
CHAOS_ROUNDS = 32
LANES = {
    # With debug information: some tests read it, by gdb or in the disassembly.
    "release": Lane("g++", ["-Doptimization=3", "-Ddebug=true", "-Db_ndebug=true"]),
    "asan": Lane("g++", ASAN_OPTIONS, ASAN_ENVIRONMENT, slowdown=4, sanitized=True),
    "tsan": Lane("clang++",
                 ["-Doptimization=1", "-Ddebug=true", "-Db_sanitize=thread", "-Db_lundef=false"],
                 {"TSAN_OPTIONS": "halt_on_error=0:second_deadlock_stack=1"},
                 slowdown=4, sanitized=True),
    # Where tests count turns they cannot hold: tests/lanes.tsv. Debug checks are on.
    "chaos": Lane("g++", ["-Doptimization=3", "-Ddebug=true", "-Dchaos=true", "-Dexamples=disabled",
                          "-Dbench=disabled"], rounds=CHAOS_ROUNDS),
    # The second compiler's AddressSanitizer runs in soak only.
    "asan-clang": Lane("clang++", ASAN_OPTIONS, ASAN_ENVIRONMENT, slowdown=4, sanitized=True),
    # Never built: its compile commands are what clang-tidy reads.
    "lint": Lane("clang++", []),
}
C_COMPILER = {"g++": "gcc", "clang++": "clang"}  # the peers of the benchmarks are in C
TEST_LANES = ["release", "asan", "tsan"]
SOAK_LANES = ["release", "chaos", "asan-clang", "tsan"]


def folder(name):
    return ROOT / "build" / name


def run(command, **keywords):
    return subprocess.run([str(part) for part in command], cwd=ROOT, **keywords).returncode


def meson_options(lane):
    # Instrumented code confuses the compilers' flow analysis: there warnings are shown, no more.
    return [f"-Dwerror={'false' if lane.sanitized else 'true'}", *lane.options]


def configure(name):
    """Sets build/<lane> up, or again when the lane's compiler or options are other than last time."""
    lane, where = LANES[name], folder(name)
    options = meson_options(lane)
    # A header that meson has looked for in vain it does not look for again, installed meanwhile or not.
    found = [header.stem for header in OPTIONAL_HEADERS if header.exists()]
    wanted = " ".join([lane.compiler, *options, *found])
    stamp = where / "lane.txt"
    if (where / "build.ninja").exists() and stamp.exists() and stamp.read_text() == wanted:
        return True
    print(f"[{name}] meson setup build/{name} ({wanted})", flush=True)
    shutil.rmtree(where, ignore_errors=True)
    compilers = {"CXX": lane.compiler, "CC": C_COMPILER[lane.compiler]}
    status = run(["meson", "setup", where, *options], env=os.environ | compilers)
    if status == 0:
        stamp.write_text(wanted)
    return status == 0


def build(name, only=()):
    """Builds everything, or only what is defined under the folders in `only`."""
    if not configure(name):
        return False
    where, targets = folder(name), []
    if only:
        # A first run of ninja regenerates the build files, so that the list of targets is today's.
        if run(["ninja", "-C", where, "build.ninja"], stdout=subprocess.DEVNULL) != 0:
            return False
        for target in json.loads((where / "meson-info/intro-targets.json").read_text()):
            if Path(target["defined_in"]).relative_to(ROOT).parts[0] in only:
                targets += [os.path.relpath(file, where) for file in target["filename"]]
        if not targets:
            return True
    print(f"[{name}] ninja in build/{name}", flush=True)
    return run(["ninja", "-C", where, *targets]) == 0


def left_out(name):
    """The rows of tests/lanes.tsv for this lane: pairs of a pattern and the reason."""
    rows = []
    for line in (ROOT / "tests/lanes.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            lanes, pattern, reason = line.split("\t")
            if name in lanes.split(","):
                rows.append((pattern, reason))
    return rows


def matches(test, patterns):
    return not patterns or any(fnmatch.fnmatch(test, f"*{pattern}*") for pattern in patterns)


def runner(lane):
    """Address randomisation as wide as newer kernels have it is more than these sanitizers bear."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    try:
        wide = lane.sanitized and int(bits.read_text()) > 28
    except (OSError, ValueError):  # not readable: nothing to be known beforehand
        wide = False
    if wide:
        print(f"{bits} is over 28: the tests run under setarch -R", flush=True)
        return ["setarch", "-R"]
    return []


def judge(row, is_about_fallback):
    """Returns (verdict, remarks) for one line of meson's testlog.json."""
    output = (row.get("stdout") or "") + "\n" + (row.get("stderr") or "")
    lines = [line.strip() for line in output.splitlines()]
    reasons = [line[len(SKIP_PREFIX):] for line in lines if line.startswith(SKIP_PREFIX)]
    fallbacks = [line for line in lines if FALLBACK_LINE in line]
    if fallbacks and not is_about_fallback:
        return "failed", fallbacks[:1]
    if row["result"] == "SKIP":
        return "skipped", reasons or ["gave no reason"]
    if row["result"] in ("OK", "EXPECTEDFAIL"):
        return "passed", reasons
    return "failed", [f"{row['result'].lower()}, exit status {row['returncode']}"]


def test(name, patterns, soak):
    """Runs one lane. Returns a list of (test, remarks) for each verdict and for what is only shown."""
    outcome = {"passed": [], "failed": [], "skipped": [], "partly": [], "left out": []}
    if not build(name):
        outcome["failed"].append(("the build", [f"see above: build/{name}"]))
        return outcome
    lane, where = LANES[name], folder(name)
    seeds = range(1, lane.rounds + 1) if lane.rounds > 1 else [None]  # None: each test chooses its own
    long = soak and lane.rounds == 1
    known = {row["name"]: [suite.split(":")[-1] for suite in row["suite"]]
             for row in json.loads((where / "meson-info/intro-tests.json").read_text())}
    chosen = []
    for test_name, suites in known.items():
        if not matches(test_name, patterns) or ("soak" in suites and not long):
            continue
        reason = next((why for pattern, why in left_out(name) if fnmatch.fnmatch(test_name, pattern)),
                      None)
        if reason:
            outcome["left out"].append((test_name, [reason]))
        else:
            chosen.append(test_name)
    if not chosen:
        return outcome

    for seed in seeds:
        environment = os.environ | lane.environment | ({"WEFT_SOAK": "1"} if long else {})
        if seed is not None:
            environment["WEFT_SEED"] = str(seed)
        print(f"[{name}] {len(chosen)} tests{'' if seed is None else f', WEFT_SEED={seed}'}", flush=True)
        run_tests(where, chosen, known, outcome, seed,
                  [*runner(lane), "meson", "test", "-C", where, "--no-rebuild", "--print-errorlogs",
                   "--timeout-multiplier", lane.slowdown * (30 if long else 1)], environment)
    return outcome


def run_tests(where, chosen, known, outcome, seed, command, environment):
    """One round: runs the tests and adds to the outcome."""
    log = where / "meson-logs/testlog.json"
    log.unlink(missing_ok=True)
    run([*command, *chosen], env=environment)
    seen = set()
    for line in log.read_text().splitlines() if log.exists() else []:
        row = json.loads(line)
        # meson may put the suite before the name: "suite / name".
        test_name = row["name"] if row["name"] in known else row["name"].split(" / ", 1)[-1]
        seen.add(test_name)
        verdict, remarks = judge(row, "fallback" in known.get(test_name, []))
        if seed is not None and verdict == "failed":
            remarks = [f"WEFT_SEED={seed}", *remarks]
        outcome[verdict].append((test_name, remarks))
        if verdict == "passed" and remarks:
            outcome["partly"].append((test_name, remarks))
    outcome["failed"] += [(test_name, ["left no result"]) for test_name in chosen
                          if test_name not in seen]


def test_lanes(lanes, patterns, soak):
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    report, matched = [], False
    for name in lanes:
        start = time.monotonic()
        outcome = test(name, patterns, soak)
        matched |= any(outcome.values())
        counts = {verdict: len(outcome[verdict]) for verdict in totals}
        report.append(f"{name}: {counts['passed']} passed, {counts['failed']} failed, "
                      f"{counts['skipped']} skipped, {time.monotonic() - start:.0f} s")
        for verdict, label in (("left out", "not in this lane"), ("skipped", "skipped"),
                               ("partly", "skipped in part"), ("failed", "FAILED")):
            for test_name, remarks in outcome[verdict]:
                report.append(f"  {label}: {test_name}: {'; '.join(dict.fromkeys(remarks))}")
        for verdict in totals:
            totals[verdict] += counts[verdict]
    print()
    print("\n".join(report))
    if not matched:
        print(f"no test matches {' '.join(patterns)}")
    print(f"\n{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    return totals["failed"] == 0 and matched


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = parser.add_subparsers(dest="word", required=True)
    for word in ("configure", "build"):
        one = words.add_parser(word)
        one.add_argument("lane", choices=LANES)
        if word == "build":
            one.add_argument("--only", nargs="+", default=[])
    for word in ("test", "soak"):
        words.add_parser(word).add_argument("arguments", nargs="*", metavar="lane or pattern")
    given = parser.parse_args()

    if given.word == "configure":
        return configure(given.lane)
    if given.word == "build":
        return build(given.lane, given.only)
    soak = given.word == "soak"
    lanes, patterns = (SOAK_LANES if soak else TEST_LANES), given.arguments
    if patterns and patterns[0] in LANES:
        lanes, patterns = patterns[:1], patterns[1:]
    return test_lanes(lanes, patterns, soak)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)

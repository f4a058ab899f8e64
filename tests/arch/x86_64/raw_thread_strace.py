#!/usr/bin/env python3
"""The life of every raw thread, as the kernel sees it: the example runs under strace.

    raw_thread_strace.py <the example program>

Every stack that was mapped is unmapped once, whole, by the thread that lived on it, whose very next
call is its exit. Nothing of what raw_thread.S does without is used. The output has more than a
hundred lines, all whole, as many from main as from every thread, and each value of the shared
counter once.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

SKIPPED = 77
THREADS = 8
failures = []


def expect(fact, what):
    if not fact:
        failures.append(what)


def run(program, folder):
    """Runs the program; returns its result and the calls of each thread, in a list per thread."""
    prefix = pathlib.Path(folder) / "trace"
    # -ff: a file for each thread, so that no call of one is cut in two by another's.
    result = subprocess.run(
        ["strace", "-ff", "-v", "-o", str(prefix), program], capture_output=True, text=True)
    traces = {int(file.suffix[1:]): file.read_text().splitlines()
              for file in prefix.parent.glob("trace.*")}
    return result, traces


def without_strace():
    """Why this machine cannot trace, or None."""
    try:
        probe = subprocess.run(
            ["strace", "-o", "/dev/null", "/bin/true"], capture_output=True, text=True)
    except FileNotFoundError:
        return "strace is not installed"
    return f"strace cannot trace here: {probe.stderr.strip()}" if probe.returncode else None


def check_stacks(traces):
    mapped, unmapped = collections.Counter(), collections.Counter()
    for calls in traces.values():
        for index, call in enumerate(calls):
            if found := re.match(r"mmap\(NULL, (\d+), .*\) += (0x[0-9a-f]+)$", call):
                mapped[found[2], found[1]] += 1
            if found := re.match(r"munmap\((0x[0-9a-f]+), (\d+)\) += 0$", call):
                unmapped[found[1], found[2]] += 1
                expect(calls[index + 1].startswith("exit(0)"),
                       f"after its stack was gone a thread called {calls[index + 1]}")
    expect(mapped.total() == THREADS, f"{mapped.total()} stacks mapped, expected {THREADS}")
    expect(mapped == unmapped, f"mapped {mapped}, unmapped {unmapped}")


def check_calls(traces):
    calls = [call for trace in traces.values() for call in trace]
    clones = [call for call in calls if call.startswith("clone")]
    expect(len(clones) == THREADS, f"{len(clones)} clones, expected {THREADS}")
    expect(len(traces) == THREADS + 1, f"{len(traces)} threads traced, expected {THREADS + 1}")
    for word in ("MAP_GROWSDOWN", "CLONE_PARENT|", "wait4", "FUTEX_WAIT_PRIVATE"):
        expect(not any(word in call for call in calls), f"{word} was used")


def check_output(text):
    lines = text.splitlines()
    expect(text.endswith("\n") and len(lines) > 100, f"{len(lines)} lines")
    speakers, values = collections.Counter(), []
    for line in lines[:-1]:
        found = re.fullmatch(r"(main|thread \d) ?(?:\(id \d+\))?: line \d+, counter (\d+)", line)
        expect(found, f"not a whole line: {line!r}")
        if found:
            speakers[found[1]] += 1
            values.append(int(found[2]))
    expect(len(speakers) == THREADS + 1 and len(set(speakers.values())) == 1,
           f"lines by speaker: {dict(speakers)}")
    expect(sorted(values) == list(range(1, len(lines))), "the counter lost or repeated a value")
    expect(lines[-1:] == [f"joined {THREADS}, counter {len(lines) - 1}"],
           f"the last line is {lines[-1:]}")


def main():
    program = sys.argv[1]
    if reason := without_strace():
        print("skipped:", reason)
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        result, traces = run(program, folder)
    expect(result.returncode == 0, f"exit status {result.returncode}: {result.stderr.strip()}")
    check_stacks(traces)
    check_calls(traces)
    check_output(result.stdout)
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(result.stdout.splitlines())} lines, {len(traces)} threads")
    return 1 if failures else 0


sys.exit(main())

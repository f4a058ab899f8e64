"""Benchmarks: runs each program of bench/ in interleaved rounds and prints a table beside its targets.

    python3 tools/bench.py --build build/release [--rounds 5] [pattern...]

The programs are those that bench/meson.build declares with benchmark(). Each prints lines
"NAME key=value ...", and every value that is a number is the metric NAME.key (but for the hash of the
result, which shows that the work was done):

    yield_2 ns=10.4 hash=91af
    boost_yield_2 ns=42.0

Interleaved, because this kind of machine drifts: a peer's figure counts only beside ours of the same
round. bench/targets.tsv says what is wanted, one row a target: metric, the most it may be, and the metric
beside which that is a ratio (empty: the figure itself). A ratio is the median of the rounds' ratios.
"""

import argparse
import fnmatch
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 900  # for one run of one program


def programs(build, patterns):
    rows = json.loads((build / "meson-info/intro-benchmarks.json").read_text())
    return [row for row in rows
            if not patterns or any(fnmatch.fnmatch(row["name"], f"*{p}*") for p in patterns)]


def measure(program):
    """Runs one program once. Returns {metric: figure}, or None when it failed."""
    done = subprocess.run(program["cmd"], env=os.environ | program["env"], text=True, timeout=LIMIT_S,
                          stdout=subprocess.PIPE)
    if done.returncode != 0:
        print(f"{program['name']}: exit status {done.returncode}\n{done.stdout}", file=sys.stderr)
        return None
    figures = {}
    for line in done.stdout.splitlines():
        name, *words = line.split() or [""]
        for key, value in (word.split("=", 1) for word in words if "=" in word):
            try:
                if key != "hash":
                    figures[f"{name}.{key}"] = float(value)
            except ValueError:
                pass  # a text, for the reader
    return figures


def targets():
    rows = []
    for line in (ROOT / "bench/targets.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            metric, limit, beside = (line.split("\t") + [""])[:3]
            rows.append((metric, float(limit), beside))
    return rows


def print_table(header, rows):
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


def report(rounds):
    """rounds: one {metric: figure} for each round."""
    series = {metric: [r[metric] for r in rounds if metric in r] for r in rounds for metric in r}
    print_table(["metric", "median", "least", "most"],
                [[metric, f"{median(figures):.4g}", f"{min(figures):.4g}", f"{max(figures):.4g}"]
                 for metric, figures in sorted(series.items())])
    verdicts = []
    for metric, limit, beside in targets():
        if beside:
            reached = [r[metric] / r[beside] for r in rounds if r.get(beside) and metric in r]
        else:
            reached = series.get(metric, [])
        if reached:
            figure = median(reached)
            verdicts.append([metric, beside or "itself", f"{figure:.4g}", f"{limit:.4g}",
                             "met" if figure <= limit else "MISSED"])
    if verdicts:
        print()
        print_table(["target", "beside", "reached", "at most", ""], verdicts)


def provenance(build):
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown cpu")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE).stdout.strip() or "unknown"
    return f"{os.cpu_count()} x {cpu}, Linux {platform.release()}, commit {commit}, {build}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("patterns", nargs="*")
    given = parser.parse_args()
    chosen = programs(given.build, given.patterns)
    if not chosen:
        print("no benchmark matches")
        return 1
    rounds, failed = [], False
    for number in range(given.rounds):
        rounds.append({})
        for program in chosen:
            print(f"round {number + 1} of {given.rounds}: {program['name']}", file=sys.stderr, flush=True)
            figures = measure(program)
            failed |= figures is None
            rounds[-1].update(figures or {})
    print(f"\n{provenance(given.build)}, medians of {given.rounds} rounds\n")
    report(rounds)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

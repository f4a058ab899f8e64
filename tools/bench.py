"""Benchmarks: runs each program of bench/ in interleaved rounds and prints a table beside its targets.

    python3 tools/bench.py --build build/release [--rounds 5] [--figures docs/figures.md] [pattern...]

The programs are those that bench/meson.build declares with benchmark(). Each prints lines
"NAME key=value ...", and every value that is a number is the metric NAME.key (but for the hash of the
result, which shows that the work was done):

    yield_2 ns=10.4 hash=91af
    boost_yield_2 ns=42.0

Interleaved, because this kind of machine drifts: a peer's figure counts only beside ours of the same
round. bench/targets.tsv says what is wanted, one row a target: metric, the most it may be, and the metric
beside which that is a ratio (empty: the figure itself). A ratio is the median of the rounds' ratios.
With --figures the tables are written down, too, with the machine and the commit; only a run of all
programs may do that. No figure gets into docs/ by hand.
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
PEERS = "best peers, in its unit"


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
    """The rows of bench/targets.tsv: metric, limit, beside, peers, what it is."""
    rows = []
    for line in (ROOT / "bench/targets.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            metric, limit, beside, _, _, peers, what = line.split("\t")
            rows.append((metric, float(limit), beside, peers, what))
    return rows


def is_text(title):
    return title in ("metric", "target", "beside", "", "what", PEERS)


def print_table(header, rows):
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.ljust(width) if is_text(header[column]) else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def tables(rounds):
    """rounds: one {metric: figure} for each round. Returns two tables, each a header and rows."""
    series = {metric: [r[metric] for r in rounds if metric in r] for r in rounds for metric in r}
    figures = [[metric, f"{median(values):.4g}", f"{min(values):.4g}", f"{max(values):.4g}"]
               for metric, values in sorted(series.items())]
    verdicts = []
    for metric, limit, beside, peers, what in targets():
        if beside:
            reached = [r[metric] / r[beside] for r in rounds if r.get(beside) and metric in r]
        else:
            reached = series.get(metric, [])
        if reached:
            figure = median(reached)
            verdicts.append([metric, beside or "itself", f"{figure:.4g}", f"{limit:.4g}",
                             "met" if figure <= limit else "MISSED", what, peers])
    return ((["metric", "median", "least", "most"], figures),
            (["target", "beside", "reached", "at most", "", "what", PEERS], verdicts))


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def provenance(build):
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown cpu")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE).stdout.strip() or "unknown"
    return f"{os.cpu_count()} x {cpu}, Linux {platform.release()}, commit {commit}, {build}"


def write_figures(path, given, figures, verdicts):
    path.write_text(f"""# Figures

Written by `tools/dev bench`; nothing here is edited by hand. Medians of {given.rounds} rounds, all programs
interleaved. On: {provenance(given.build)}.

What each row means, and why it is measured so, stands on the first line of its program in `bench/`. Rows
of one worker are CPU time on one processor, rows of two are wall time. Where the peers come from
stands in `bench/targets.tsv`.

## Targets

{markdown(*verdicts)}

## All figures

{markdown(*figures)}
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("patterns", nargs="*")
    given = parser.parse_args()
    if given.figures and given.patterns:
        parser.error("--figures is for a run of all programs")
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
    figures, verdicts = tables(rounds)
    print_table(*figures)
    if verdicts[1]:
        header, rows = verdicts
        without_what = [[*row[:5], *row[6:]] for row in [header, *rows]]  # too wide for a terminal
        print()
        print_table(without_what[0], without_what[1:])
    if given.figures and not failed:
        write_figures(given.figures, given, figures, verdicts)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

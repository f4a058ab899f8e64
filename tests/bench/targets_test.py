"""Checks that bench/targets.tsv can be read by a program: seven columns, numbers, no target set twice.

    targets_test.py bench/targets.tsv
"""

import re
import sys

METRIC = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")
UNITS = {"ns", "ms", "bytes", "stacks", "ratio"}


def complaints(lines):
    seen = set()
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        columns = line.rstrip("\n").split("\t")
        if len(columns) != 7:
            yield f"line {number}: {len(columns)} columns instead of 7"
            continue
        metric, limit, beside, unit, _, _, what = columns
        if not METRIC.fullmatch(metric) or (beside and not METRIC.fullmatch(beside)):
            yield f"line {number}: a metric is NAME.key"
        if not re.fullmatch(r"\d+(\.\d+)?", limit) or float(limit) <= 0:
            yield f"line {number}: {limit!r} is no limit"
        if unit not in UNITS or (unit == "ratio") != bool(beside):
            yield f"line {number}: the unit is {unit!r}, beside {beside!r}"
        if not what:
            yield f"line {number}: nothing says what it is"
        if (metric, beside) in seen:
            yield f"line {number}: {metric} beside {beside or 'itself'} is there twice"
        seen.add((metric, beside))
    if not seen:
        yield "no target at all"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        found = list(complaints(file))
    print("\n".join(found) or "all rows can be read")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

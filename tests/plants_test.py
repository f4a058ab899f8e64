#!/usr/bin/env python3
"""Every bug of runtime/base/plant.h has a test that must find it, and every such row has its bug."""

import sys
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import lanes
import plant


def main():
    bugs, plants = plant.bugs(), plant.read_plants()
    named = Counter(row.number for row in plants)
    failures = [f"bug {number} has no row in tests/plants.tsv" for number in bugs.keys() - named.keys()]
    failures += [f"row {number} has no bug in runtime/base/plant.h" for number in named - Counter(bugs.keys())]
    failures += [f"row {row.number}: no lane {row.lane}" for row in plants if row.lane not in lanes.LANES]
    print("\n".join(failures) or f"{len(bugs)} planted bugs, each with its test")
    return 1 if failures or not bugs else 0


if __name__ == "__main__":
    sys.exit(main())

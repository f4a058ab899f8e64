#!/usr/bin/env python3
"""The memory-order audit: every atomic access of runtime/ stands in orders.tsv, with the edge that it makes.

    tests/model/weaken.py check ROOT             # the table is complete, and says what the sources say
    tests/model/weaken.py run ROOT BUILD [WORD]  # weakens each order by one step, and runs what must find it

A row is: file, function, access, order, the next weaker order, proof, edge. A proof is

    relacy_park_test [free]    that program, by that tag, fails when the order is weaker
    redundant PROGRAM [TAG]    it does not fail, and the edge says why, and why the order is kept
    argued                     no program of ours runs it; the edge says why it holds
    -                          relaxed: it makes no edge. The function, and the access, may be *: then it is
                               said of all in the file that have no row of their own

An operation that is acq_rel has two rows: without its release, and without its acquire.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
import orders

EXIT_UNUSED = 9  # relacy_weaken.h: no test came to that access
SCHEDULES_RED = "200000"
SCHEDULES_GREEN = "50000"


@dataclass(frozen=True)
class Row:
    file: str
    function: str
    access: str
    order: str
    weaker: str
    proof: str
    edge: str


def read_table(root):
    lines = (Path(root) / "tests/model/orders.tsv").read_text().splitlines()
    return [Row(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def weaker_orders(access, order):
    operation = access.text.split(".")[-1]
    is_load = order.role == "failure" or "load" in operation
    if order.order == "seq_cst":
        return ["acquire"] if is_load else ["release"] if "store" in operation else ["acq_rel"]
    return {"acq_rel": ["acquire", "release"], "relaxed": ["-"]}.get(order.order, ["relaxed"])


def wanted(root):
    """{what a row must be about: (access, order)}; the second order of a compare-exchange is "on failure"."""
    found = {}
    for access in orders.read(root):
        for order in access.orders:
            name = order.order + (" on failure" if order.role == "failure" else "")
            for weaker in weaker_orders(access, order):
                found[(*access.key, name, weaker)] = (access, order)
    return found


def row_for(rows, key):
    file, function, access, order, weaker = key
    exact = rows.get(key)
    if exact is not None or weaker != "-":
        return exact
    same = rows.get((file, "*", access.split()[0], order, weaker))
    return same or rows.get((file, "*", "*", order, weaker))


def check(root):
    table = read_table(root)
    rows = {(row.file, row.function, row.access, row.order, row.weaker): row for row in table}
    problems = [f"two rows for {row}" for row in table
                if rows[(row.file, row.function, row.access, row.order, row.weaker)] is not row]
    used = set()
    for key, (access, _) in wanted(root).items():
        row = row_for(rows, key)
        if row is None:
            problems.append(f"{access.file}:{access.first}: no row for\t" + "\t".join(key))
        else:
            used.add(row)
            if (row.weaker == "-") != (row.proof == "-") or len(row.edge) < 8:
                problems.append(f"{access.file}:{access.first}: says too little: {row}")
    problems += [f"the sources have no such access: {row}" for row in table if row not in used]
    problems += [f"{place}: an order outside of any access" for place in orders.strays(root)]
    counts = f"{len(wanted(root))} orders of {len(orders.read(root))} accesses, all in the table"
    print("\n".join(problems) or counts)
    return not problems


def run_one(build, row, access, order):
    """Returns what is wrong, or nothing."""
    words = row.proof.split()
    is_redundant = words[0] == "redundant"
    program, tag = words[1:] if is_redundant else words
    what = (f"{Path(access.file).name}:{access.first}-{access.last}:{order.role}:{order.order}:{row.weaker}")
    schedules = SCHEDULES_GREEN if is_redundant else SCHEDULES_RED
    ended = subprocess.run([str(Path(build) / "tests/model" / program), "--abort", tag],
                           env=os.environ | {"WEFT_WEAKEN": what, "WEFT_SCHEDULES": schedules},
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wanted_end = "green" if is_redundant else "red"
    end = {0: "green", EXIT_UNUSED: "never executed"}.get(ended.returncode, "red")
    return "" if end == wanted_end else f"WEFT_WEAKEN={what} {program} {tag}: {end}, not {wanted_end}"


def run(root, build, word):
    rows = {(row.file, row.function, row.access, row.order, row.weaker): row for row in read_table(root)}
    jobs = []
    for key, (access, order) in wanted(root).items():
        row = row_for(rows, key)
        if row is not None and row.proof not in ("-", "argued") and word in "\t".join(key):
            jobs.append((build, row, access, order))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [problem for problem in pool.map(lambda job: run_one(*job), jobs) if problem]
    red = sum(not row.proof.startswith("redundant") for _, row, _, _ in jobs)
    counts = f"{red} weaker orders found, {len(jobs) - red} that are stronger than they need be"
    print("\n".join(problems) or counts)
    return not problems


def main(arguments):
    if arguments[:1] == ["check"] and len(arguments) == 2:
        return check(arguments[1])
    if arguments[:1] == ["run"] and len(arguments) in (3, 4):
        return run(*arguments[1:3], (arguments[3:] or [""])[0])
    print(__doc__)
    return False


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)

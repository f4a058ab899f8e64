#!/usr/bin/env python3
"""thread_start is branchless and short: read it in the disassembly.

    raw_thread_disassembly.py <library with weft_thread_start> <library with the planted functions>

From its entry to its `ret`: fewer than fifteen instructions, one of them `syscall`, none a branch.
The same check must refuse every planted function but the good one, each for its own reason.

Counter and lock are locked instructions: without, they lose an update only once in a long while.
"""

import re
import subprocess
import sys

LIMIT = 15
BRANCH = re.compile(r"^(bnd |notrack )*(j\w+|call\w*|loop\w*|xbegin|iret\w*|sysret\w*)\b")
RETURN = re.compile(r"^(bnd |repz )*retq?\b")

ATOMIC = {
    "weft_counter_add": ["lock xadd"],
    "weft_spin_lock": ["lock cmpxchg", "pause"],
}

PLANTED = {
    "planted_good": None,
    "planted_long": "15 instructions",
    "planted_branch": "branch: je",
    "planted_jump": "branch: jmp",
    "planted_call": "branch: call",
    "planted_fall": "no ret",
    "planted_nothing": "0 system calls",
}


def functions(library):
    """Maps each function of the library to its instructions, padding included."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", library],
        check=True, capture_output=True, text=True).stdout
    found, current = {}, None
    for line in listing.splitlines():
        if header := re.match(r"^[0-9a-f]+ <(\w+)>:$", line):
            current = found.setdefault(header[1], [])
        elif instruction := re.match(r"^\s+[0-9a-f]+:\t(.*)$", line):
            current.append(instruction[1].split("#")[0].strip())
    return found


def fault(instructions):
    """What is wrong with a function from its entry to its first `ret`, or None."""
    returns = [n for n, instruction in enumerate(instructions) if RETURN.match(instruction)]
    path = instructions[:returns[0] + 1] if returns else instructions
    for instruction in path:
        if BRANCH.match(instruction):
            return f"branch: {instruction}"
    if not returns:
        return "no ret"
    if len(path) >= LIMIT:
        return f"{len(path)} instructions"
    if (calls := path.count("syscall")) != 1:
        return f"{calls} system calls"
    return None


def main():
    real, planted = functions(sys.argv[1]), functions(sys.argv[2])
    failures = []

    if complaint := fault(real["weft_thread_start"]):
        failures.append(f"weft_thread_start: {complaint}")

    for name, wanted in ATOMIC.items():
        for start in wanted:
            if not any(instruction.startswith(start) for instruction in real[name]):
                failures.append(f"{name}: no {start}")

    for name, expected in PLANTED.items():
        complaint = fault(planted[name])
        refused_rightly = complaint is not None and expected and complaint.startswith(expected)
        if complaint != expected and not refused_rightly:
            failures.append(f"the checker says {complaint!r} of {name}, expected {expected!r}")

    print("weft_thread_start:", *real["weft_thread_start"], sep="\n    ")
    for failure in failures:
        print("FAILED:", failure)
    return 1 if failures else 0


sys.exit(main())

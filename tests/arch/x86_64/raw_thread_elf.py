#!/usr/bin/env python3
"""What the raw threads' object and program tell the kernel and the linker about themselves.

    raw_thread_elf.py <library with raw_thread.S> <the example program>

The object asks for no executable stack and is marked for IBT, never for a shadow stack: the core
returns to an address that no call pushed. The program has a stack that is not executable, no
interpreter, and no constructors, which nobody would run.
"""

import subprocess
import sys

failures = []


def readelf(*arguments):
    return subprocess.run(
        ["readelf", "-W", *arguments], check=True, capture_output=True, text=True).stdout


def expect(fact, what):
    if not fact:
        failures.append(what)


def check_object(library):
    properties = readelf("-n", library)
    expect("x86 feature: IBT" in properties, "object: not marked for IBT")
    expect("SHSTK" not in properties, "object: marked for a shadow stack")

    notes = [line for line in readelf("-S", library).splitlines() if ".note.GNU-stack" in line]
    expect(len(notes) == 1, f"object: {len(notes)} .note.GNU-stack sections, expected 1")
    # "[ 6] .note.GNU-stack PROGBITS <address> <offset> <size> <entry size> [flags] link info align"
    flags = notes[0].split("PROGBITS")[1].split()[4:-3] if notes else []
    expect(not flags, f"object: .note.GNU-stack has the flags {flags}")

    symbols = [line.split() for line in readelf("-s", library).splitlines() if " weft_" in line]
    expect(symbols, "object: no functions")
    for _, _, size, kind, _, visibility, *_, name in symbols:
        expect(kind == "FUNC" and int(size, 0) > 0, f"{name}: no type or size")
        expect(visibility == "HIDDEN", f"{name}: not hidden")


def check_program(program):
    expect("SHSTK" not in readelf("-n", program), "program: marked for a shadow stack")
    headers = [line.split() for line in readelf("-l", program).splitlines()]
    stacks = [line for line in headers if line[:1] == ["GNU_STACK"]]
    expect(len(stacks) == 1 and stacks[0][6] == "RW", f"program: GNU_STACK is {stacks}")
    dynamic = any(line[:1] in (["INTERP"], ["DYNAMIC"]) for line in headers)
    expect(not dynamic, "program: not static")
    expect(".init_array" not in readelf("-S", program), "program: has constructors")


check_object(sys.argv[1])
check_program(sys.argv[2])
for failure in failures:
    print("FAILED:", failure)
sys.exit(1 if failures else 0)

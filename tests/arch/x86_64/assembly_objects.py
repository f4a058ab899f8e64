#!/usr/bin/env python3
"""What the assembly objects tell linker, loader and unwinder, and what the linked program keeps of it.

    assembly_objects.py <libweft.a> <a program that links it> <compiler>...

Of each object made from assembly: the stack is not executable (without the note the linker makes it so
for the whole program); every instruction lies in a function, and every function has call frame
information from its first byte to its last; each function begins with endbr64, but for those that no
indirect jump or call reaches; marked for IBT, never for SHSTK. Of the program: its stack is RW, and it is not marked
SHSTK. An object planted with all these faults is found out. Exits 77 without readelf or objdump.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NEVER_REACHED_INDIRECTLY = {
    "weft_entry": "weft_loop jumps to it, or returns to where seed_stack says",
    "weft_adopt": "called directly, and returned into",
}
PLANTED = ".globl weft_planted\n.type weft_planted, @function\nweft_planted: ret\n" \
          ".size weft_planted, . - weft_planted\n"


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def split_members(text):
    """An archive's output as {member: text}."""
    parts = re.split(r"^(?:File: \S*\((\S+)\)|(\S+):\s+file format.*)$", text, flags=re.MULTILINE)
    return {first or second: body for first, second, body in zip(parts[1::3], parts[2::3], parts[3::3])}


def functions_of(symbols):
    """{name: (start, end)} of the functions, from readelf -s."""
    found = {}
    for line in symbols.splitlines():
        words = line.split()
        if len(words) >= 8 and words[3] == "FUNC" and words[6] != "UND":
            found[words[7]] = (int(words[1], 16), int(words[1], 16) + int(words[2], 0))
    return found


def covered_by(frames):
    """The ranges that have call frame information, from readelf --debug-dump=frames."""
    return [(int(low, 16), int(high, 16))
            for low, high in re.findall(r"FDE cie=\w+ pc=(\w+)\.\.(\w+)", frames)]


def first_instructions(disassembly):
    """{function: mnemonic of its first instruction}, from objdump -d."""
    return {name: mnemonic for name, mnemonic in
            re.findall(r"^\w+ <(\w+)>:\n\s+\w+:\t(?:[0-9a-f]{2} ?)+\s*\t(\S+)", disassembly, re.MULTILINE)}


def instructions_outside(disassembly, functions):
    for address, text in re.findall(r"^\s+(\w+):\t(?:[0-9a-f]{2} ?)+\s*\t(\S.*)$", disassembly, re.MULTILINE):
        at = int(address, 16)
        padding = re.match(r"(?:data16|cs|nop|xchg +%ax,%ax)", text)
        if not padding and not any(low <= at < high for low, high in functions.values()):
            yield f"{at:#x} {text}"


def faults_of(path, member):
    """All that is wrong with one object, `member` of an archive or "" for a file of its own."""
    def ask(*command):
        output = output_of(*command, path)
        return split_members(output).get(member, "") if member else output

    faults = []
    stack_notes = [line for line in ask("readelf", "-SW").splitlines() if ".note.GNU-stack" in line]
    if len(stack_notes) != 1 or stack_notes[0].split("PROGBITS")[1].split()[4:-3]:
        faults.append("asks for an executable stack")
    features = " ".join(re.findall(r"x86 feature: (.*)", ask("readelf", "-nW")))
    if "IBT" not in features or "SHSTK" in features:
        faults.append(f"is marked '{features}' instead of IBT alone")

    functions = functions_of(ask("readelf", "-sW"))
    ranges = covered_by(ask("readelf", "-W", "--debug-dump=frames"))
    disassembly = ask("objdump", "-d", "--insn-width=16")
    first = first_instructions(disassembly)
    if not functions:
        faults.append("has no function")
    for name, (start, end) in functions.items():
        if start == end:
            faults.append(f"{name} has no size")
        if not any(low <= start and end <= high for low, high in ranges):
            faults.append(f"{name} has no call frame information for all of itself")
        if first.get(name) != "endbr64" and name not in NEVER_REACHED_INDIRECTLY:
            faults.append(f"{name} begins with {first.get(name)}, not with endbr64")
    faults += [f"{where} is in no function" for where in instructions_outside(disassembly, functions)]
    return faults


def check_planted(compiler):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "planted.o"
        subprocess.run([compiler, "-x", "assembler", "-c", "-", "-o", path], input=PLANTED, text=True,
                       check=True)
        faults = " ".join(faults_of(path, ""))
    return [f"the planted object with {compiler}: not seen that it {what}"
            for what in ("asks for an executable stack", "is marked ''", "call frame", "begins with ret")
            if what not in faults]


def check_program(program):
    headers = [line.split() for line in output_of("readelf", "-lW", program).splitlines()]
    stacks = [words[6] for words in headers if words[:1] == ["GNU_STACK"]]
    faults = [] if stacks == ["RW"] else [f"the program's stack is {stacks}"]
    if "SHSTK" in output_of("readelf", "-nW", program):
        faults.append("the program is marked SHSTK")
    return faults


def main():
    library, program, *compiler = sys.argv[1:]
    for tool in ("readelf", "objdump"):
        if shutil.which(tool) is None:
            print(f"skipped: no {tool}")
            return 77
    members = [name for name in output_of("ar", "t", library).split() if ".S." in name]
    failures = [] if len(members) >= 2 else [f"{library} has the assembly objects {members} only"]
    for member in members:
        print(member)
        failures += [f"{member}: {fault}" for fault in faults_of(library, member)]
    failures += check_program(program)
    if compiler:
        failures += check_planted(compiler[-1])
    for failure in failures:
        print("FAILED:", failure)
    return 1 if failures else 0


sys.exit(main())

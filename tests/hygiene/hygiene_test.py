#!/usr/bin/env python3
"""The library and our programs are built as hardened ones are; and each check finds a bad artefact.

    hygiene_test.py ROOT BUILD LIBRARY PROGRAM...

N1, N2, N4 and N8 of the programs, N4, N5 and N8 of the library, N7 of the commands that compile everything.
Exits 77 without readelf.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
import artefacts

ERRORS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
FENCE = "#include <atomic>\nvoid f() { std::atomic_thread_fence(std::memory_order_seq_cst); }\n"


def check_commands(build):
    commands = json.loads((Path(build) / "compile_commands.json").read_text())
    faults = []
    for one in commands:
        name, words = one["output"], one["command"].split()
        if name.startswith("runtime/libweft.a.p/"):
            faults += [f"{name} {fault}" for fault in artefacts.flag_faults(one["command"])]
        if one["file"].endswith(".cc"):
            faults += [f"{name} is compiled without {flag}" for flag in ERRORS if flag not in words]
    return faults


def check_fences(root):
    """g++ says where ThreadSanitizer would be blind: at fences, of which the runtime has none. [N7]"""
    way = ["g++", "-std=c++20", "-fsanitize=thread", "-O1", "-Wtsan", "-Werror=tsan", "-x", "c++", "-c", "-",
           "-o", "/dev/null", f"-I{root}", f"-I{root}/runtime/include"]
    whole = "".join(f'#include "{source}"\n' for source in sorted(Path(root).glob("runtime/*/*.cc")))

    def compiles(text):
        return subprocess.run(way, input=text, text=True, capture_output=True).returncode == 0

    faults = [] if compiles(whole) else ["the runtime does not compile with -Wtsan as an error"]
    return faults + (["a fence compiles with -Wtsan as an error"] if compiles(FENCE) else [])


def check_planted(compiler):
    """Each check must find what is wrong with artefacts that are made to be bad."""
    with tempfile.TemporaryDirectory() as scratch:
        program, thing = Path(scratch) / "program", Path(scratch) / "thing.o"
        subprocess.run([compiler, "-x", "c++", "-", "-no-pie", "-z", "execstack", "-z", "lazy", "-z",
                        "norelro", "-o", program], input="int main() {}\n", text=True, check=True)
        subprocess.run([compiler, "-x", "c++", "-", "-fcf-protection=full", "-c", "-o", thing],
                       input="void stranger() {}\n", text=True, check=True)
        found = " ".join(artefacts.program_faults(program) + artefacts.archive_faults(thing)
                         + artefacts.flag_faults("g++ -O2 -c x.cc"))
    expected = ["executable stack", "binds lazily", "fixed address", "no name of ours", "exports",
                "is marked SHSTK", *artefacts.HARDENED]
    return [f"the planted artefacts: not seen: {what}" for what in expected if what not in found]


def main():
    root, build, library, *programs = sys.argv[1:]
    if shutil.which("readelf") is None:
        print("skipped: no readelf")
        return 77
    faults = [f"{Path(program).name} {fault}" for program in programs
              for fault in artefacts.program_faults(program)]
    faults += [f"libweft.a {fault}" for fault in artefacts.archive_faults(library)]
    faults += check_commands(build) + check_fences(root) + check_planted("g++")
    for fault in faults:
        print("FAILED:", fault)
    print(f"{len(programs)} programs, {len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())

#!/usr/bin/env python3
"""The checks of the switch hold with both compilers, at -O0, -O2 and -O3, with and without -fPIC, and with every
vector register that this processor has. [A1] [A3] [A4] [A7]

    switch_matrix.py <source root>

A compiler assumes things about calls, and each level of optimisation rests on others of them. So the
checks, and the fibers that they run on, are compiled anew in each way; the assembly is the same.
Exits 77 when there is no compiler at all.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = "tests/arch/x86_64/"
SOURCES = [TESTS + "switch_checks.cc", TESTS + "switch_checks_main.cc", TESTS + "small_fibers.cc",
           TESTS + "checked_switch.S", "arch/x86_64/switch.S"]
LEVELS = ["-O0", "-O2", "-O3"]
MODELS = [["-fno-pie", "-no-pie"], ["-fPIC", "-pie"], ["-march=native"]]


def main():
    root = Path(sys.argv[1])
    compilers = [name for name in ("g++", "clang++") if shutil.which(name)]
    if not compilers:
        print("skipped: neither g++ nor clang++ is in the path")
        return 77
    for name in {"g++", "clang++"} - set(compilers):
        print(f"skipped: no {name}")
    seed = os.environ.get("WEFT_SEED", str(random.getrandbits(32)))
    print(f"WEFT_SEED={seed}")
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "checks"
        for compiler in compilers:
            for level in LEVELS:
                for model in MODELS:
                    way = [compiler, "-std=c++20", "-g", level, *model]
                    subprocess.run([*way, f"-I{root}", *(root / name for name in SOURCES),
                                    "-o", program], check=True)
                    ran = subprocess.run([program, seed], capture_output=True, text=True, timeout=60)
                    if ran.returncode != 0:
                        failures += 1
                        print("FAILED:", *way, f"exit status {ran.returncode}", ran.stdout + ran.stderr)
    print(f"{len(compilers) * len(LEVELS) * len(MODELS)} builds, {failures} failed")
    return 1 if failures else 0


sys.exit(main())

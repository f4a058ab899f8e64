#!/usr/bin/env python3
"""No function of the library keeps anything of the thread over a switch; and the lint finds one that does. [H2]

    tls_lint_test.py <libweft.a> <tls_planted.cc>

The planted functions are compiled by both compilers, each in several ways. Exits 77 without objdump.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
import tls_lint

WAYS = [["-O0"], ["-O2"], ["-O3", "-fPIC"], ["-O2", "-fPIC", "-ftls-model=initial-exec"]]
# What the compiler may keep, if it likes: g++ does at -O2 and above.
KEPT_BY_GXX = {"kept_errno"}


def function_names(findings):
    """The plain names of the functions that the findings are in."""
    return {re.sub(r"^_Z\d+([a-z_]+?)(?:v|i|)$", r"\1", name.split(".")[0]) for name, _ in findings}


def check_planted(source, compiler, way, scratch):
    target = Path(scratch) / "planted.o"
    subprocess.run([compiler, "-std=c++20", "-fstack-protector-all", *way, "-c", source, "-o", target],
                   check=True)
    findings, _ = tls_lint.lint([target])
    found = function_names(findings)
    text = Path(source).read_text()
    expected = set(re.findall(r"^void (bad_\w+)\(", text, re.MULTILINE))
    if compiler == "g++" and "-O0" not in way:
        expected |= KEPT_BY_GXX
    how = " ".join([compiler, *way])
    wrong = [f"{how}: {name} was not found" for name in sorted(expected - found)]
    wrong += [f"{how}: {name} was found, and is right" for name in sorted(found)
              if name.startswith("good_") or name == "park"]
    return wrong


def main():
    library, source = sys.argv[1:]
    if shutil.which("objdump") is None:
        print("skipped: no objdump")
        return 77
    findings, switching = tls_lint.lint([library])
    failures = [f"{name}+{address:#x}: {text}" for (name, address), text in findings.items()]
    if not any("Worker5leave" in name for name in switching):
        failures.append("the call graph does not lead from Worker::leave to weft_leave")
    compilers = [name for name in ("g++", "clang++") if shutil.which(name)]
    with tempfile.TemporaryDirectory() as scratch:
        for compiler in compilers:
            for way in WAYS:
                failures += check_planted(source, compiler, way, scratch)
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(switching)} functions can reach weft_leave; planted with {' and '.join(compilers)}")
    return 1 if failures else 0


sys.exit(main())

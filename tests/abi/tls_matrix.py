#!/usr/bin/env python3
"""What the runtime keeps of its thread is fresh after every park, however it is compiled and linked. [H1] [H2]

    tls_matrix.py ROOT

Compiles the runtime and tls_checks.cc by both compilers, at -O0 to -O3, as a program, as position-independent
code in a program and in a shared library, each with and without link-time optimisation: 48 ways, of which a
plain run tries 16 and one with WEFT_SOAK all. Link-time optimisation makes of it one program that has every
function of the runtime in view. Each way runs, and tls_lint.py reads its code.

That the naive reads of the same program go stale where a compiler optimises proves the moves. Exits 77 when
there is no compiler at all.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
import tls_lint
from runtime_build import compile_runtime, link_flags

COMPILERS, LEVELS = ["g++", "clang++"], ["-O0", "-O1", "-O2", "-O3"]
FORMS = {  # how it is compiled, and what is linked of it
    "program": (["-fno-pie"], ["program"]),
    "library": (["-fPIC"], ["static library", "shared library"]),
}
# By each compiler: five runtimes, eight programs. Each level, each form and each kind of linking is there.
BOUNDED = [("-O0", "library", False), ("-O1", "program", False), ("-O2", "library", False),
           ("-O2", "program", True), ("-O3", "library", True)]
# What tls_checks.cc does on purpose, also where it has become part of the closure that run() calls.
NAIVE = re.compile(r"(is_fresh|check_runtime|tls_checks)")


@dataclass
class Way:
    compiler: str
    level: str
    form: str
    whole_program: bool

    def command(self):
        # The objects of clang's link-time optimisation are not for GNU's linker.
        lto = {"g++": ["-flto=2"], "clang++": ["-flto", "-fuse-ld=lld", "-Qunused-arguments"]}
        return [self.compiler, self.level, *FORMS[self.form][0],
                *(lto[self.compiler] if self.whole_program else [])]

    def __str__(self):
        return " ".join([self.compiler, self.level, self.form, *(["-flto"] if self.whole_program else [])])

    def must_be_stale(self):
        """Whether a naive read goes stale for certain: with the levels at which people ship."""
        return self.level in ("-O2", "-O3")


def link(way, target, objects, folder):
    """Links the runtime, the checks and main(); the program, and the file that has the runtime in it."""
    *runtime, main = objects
    program, command, libraries = folder / "program", way.command(), link_flags()
    if target == "shared library":
        shared = folder / "libchecks.so"
        subprocess.run([*command, "-shared", *runtime, "-o", shared, *libraries], check=True)
        subprocess.run([*command, "-pie", main, f"-L{folder}", "-lchecks", "-o", program], check=True)
        return program, shared
    pie = "-no-pie" if target == "program" else "-pie"
    subprocess.run([*command, pie, *objects, "-o", program, *libraries], check=True)
    return program, program


def stale_code(paths):
    """What the lint finds, but for the naive functions."""
    findings, switching = tls_lint.lint(paths)
    failures = [f"{name}: {text}" for (name, _), text in findings.items() if not NAIVE.search(name)]
    if len(switching) < 20:
        failures.append(f"only {len(switching)} functions can reach weft_leave")
    return failures


def try_way(root, way, folder):
    """The failures of one way; prints what was seen stale."""
    sources = [root / "tests/abi/tls_checks.cc", root / "tests/abi/tls_main.cc"]
    objects = compile_runtime(root, way.command(), folder, sources)
    failures = [] if way.whole_program else stale_code(objects)
    for target in FORMS[way.form][1]:
        program, whole = link(way, target, objects, folder)
        if way.whole_program:
            failures += stale_code([whole])
        ran = subprocess.run([program], env=os.environ | {"LD_LIBRARY_PATH": str(folder)}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        stale = [name for name, count in re.findall(r"(\S+)=(\d+)", ran.stdout) if int(count) > 0]
        print(f"{way}, {target}: naive and stale: {' '.join(stale) or 'nothing'}", flush=True)
        if ran.returncode != 0 or "runtime fresh" not in ran.stdout:
            failures.append(f"{target}: exit status {ran.returncode}: {ran.stdout}")
        if way.must_be_stale() and not stale:
            failures.append(f"{target}: nothing naive went stale: did the fibers move?")
    return [f"{way}: {failure}" for failure in failures]


def ways():
    chosen = itertools.product(LEVELS, FORMS, (False, True)) if os.environ.get("WEFT_SOAK") else BOUNDED
    for compiler, (level, form, whole_program) in itertools.product(COMPILERS, chosen):
        if shutil.which(compiler) is None:
            print(f"skipped: no {compiler}")
        elif compiler == "clang++" and whole_program and shutil.which("ld.lld") is None:
            print("skipped: no lld, which links what clang++ -flto compiles")
        else:
            yield Way(compiler, level, form, whole_program)


def main():
    root = Path(sys.argv[1])
    failures, tried = [], 0
    for way in ways():
        with tempfile.TemporaryDirectory(prefix="weft-tls-") as scratch:
            failures += try_way(root, way, Path(scratch))
        tried += len(FORMS[way.form][1])
    for failure in failures:
        print("FAILED:", failure)
    print(f"{tried} ways, {len(failures)} failures")
    return 1 if failures else (0 if tried else 77)


sys.exit(main())

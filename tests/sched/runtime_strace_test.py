#!/usr/bin/env python3
"""Each worker of a runtime is one kernel thread made by raw clone, with a TLS and an I/O context.

usage: runtime_strace_test.py <endings>     exits 77 where strace or raw clone cannot be used
"""
import os
import shutil
import subprocess
import sys
import tempfile

WORKERS = 3
FLAGS = ("CLONE_SETTLS", "CLONE_IO")


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def main():
    if shutil.which("strace") is None:
        skip("no strace")
    # The leak sanitizer is a tracer itself and fails under another one.
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    with tempfile.TemporaryDirectory() as folder:
        # One file a kernel thread, so that no line is torn by another's.
        strace = ["strace", "-ff", "-e", "trace=clone", "-o", os.path.join(folder, "trace")]
        if subprocess.run(strace + ["true"], capture_output=True).returncode != 0:
            skip("strace may not trace here")
        program = subprocess.run(strace + [sys.argv[1], "workers", str(WORKERS)], env=environment,
                                 capture_output=True, text=True)
        if program.returncode != 0:
            sys.exit("the traced program failed\n" + program.stderr)
        if "fallback" in program.stdout:
            skip("raw clone is refused here: " + program.stderr.strip())
        lines = []
        for name in os.listdir(folder):
            with open(os.path.join(folder, name)) as file:
                lines += [line for line in file if line.startswith("clone(")]
    ours = [line for line in lines if all(flag in line for flag in FLAGS)]
    print("".join(ours), end="")
    if len(ours) != WORKERS:
        sys.exit(f"{len(ours)} raw clones for {WORKERS} workers")


main()

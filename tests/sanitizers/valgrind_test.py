#!/usr/bin/env python3
"""A program of a hundred fibers and a ring runs under Valgrind's memcheck without an error. [A10] [J5]

    valgrind_test.py <memcheck_fibers>

Memcheck takes a small step of the stack pointer for a frame, and a large one for another stack. Fiber stacks
are 256 KiB apart, so what is large is said here.
"""

import shutil
import subprocess
import sys

COMMAND = ["valgrind", "-q", "--error-exitcode=99", "--fair-sched=yes", "--max-stackframe=65536"]


def main():
    if shutil.which("valgrind") is None:
        print("skipped: there is no valgrind")
        return 77
    ran = subprocess.run([*COMMAND, *sys.argv[1:]], capture_output=True, text=True, timeout=240)
    if ran.returncode != 0 or "Invalid" in ran.stderr:
        print(f"exit status {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return 1
    return 0


sys.exit(main())

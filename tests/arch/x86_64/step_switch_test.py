#!/usr/bin/env python3
"""Runs step_switch.gdb.py on the program that it follows. Exits 77 without gdb, or where ptrace is forbidden.

    step_switch_test.py <step_switch.gdb.py> <switch_steps>
"""

import shutil
import subprocess
import sys


def main():
    script, program = sys.argv[1:]
    if shutil.which("gdb") is None:
        print("skipped: no gdb")
        return 77
    ran = subprocess.run(["gdb", "-nx", "-batch", "-x", script, program], capture_output=True, text=True,
                         timeout=240)
    output = ran.stdout + ran.stderr
    if "ptrace" in output and "Operation not permitted" in output:
        print("skipped: ptrace is forbidden here")
        return 77
    steps = [line.split() for line in ran.stdout.splitlines() if line.startswith("steps ")]
    if ran.returncode != 0 or "FAILED" in output or len(steps) != 1 or int(steps[0][1]) < 100:
        print(output)
        return 1
    print(f"{steps[0][1]} instructions, each with a whole backtrace")
    return 0


sys.exit(main())

#!/usr/bin/env python3
"""Each fault planted in a fiber is reported, by its kind and with the fiber's own function in the stack. [J3]

    planted_faults_test.py <planted_faults> <address|thread>

And what is no fault is not reported.
"""

import os
import subprocess
import sys

FAULTS = {
    "address": {
        "heap_overflow": "heap-buffer-overflow",
        "array_overflow": "stack-buffer-overflow",
        "use_after_return": "stack-use-after-return",
        "use_after_scope": "stack-use-after-scope",
        "leak": "detected memory leaks",
    },
    "thread": {
        "race_of_workers": "data race",
        "race_of_fibers": "data race",
    },
}
# LeakSanitizer stops the kernel threads that it knows. Of a worker it knows the thread id that the worker
# had before adoption, and says so; what the worker holds it finds in the root regions.
EXPECTED_REMARK = "False leaks are possible"
CLEAN = ["suspended_owners", "stacks_used_again"]
OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_leaks=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=0",
}


def run(program, name):
    ran = subprocess.run([program, name], capture_output=True, text=True, timeout=60,
                         env=os.environ | OPTIONS)
    return ran.returncode, ran.stdout + ran.stderr


def check_fault(program, name, kind):
    status, output = run(program, name)
    report = output[output.find(kind):]
    frames = [line for line in report.splitlines() if line.lstrip().startswith("#")]
    if status == 0 or kind not in output:
        return f"{name}: no report of a {kind}\n{output}"
    if not any(f" {name}" in frame or f"::{name}(" in frame for frame in frames):
        return f"{name}: the report does not name the function\n{output}"
    return None


def check_clean(program, name):
    status, output = run(program, name)
    lines = [line for line in output.splitlines() if EXPECTED_REMARK not in line]
    return f"{name}: exit status {status}\n{output}" if status != 0 or lines else None


def main():
    program, sanitizer = sys.argv[1:]
    found = [check_fault(program, name, kind) for name, kind in FAULTS[sanitizer].items()]
    found += [check_clean(program, name) for name in CLEAN]
    failures = [failure for failure in found if failure]
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(found)} runs, {len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())

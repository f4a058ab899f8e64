#!/usr/bin/env python3
"""Each adopted thread is one raw clone, with exactly the flags that adoption.cc argues for.

usage: adoption_strace_test.py <kernel_thread_test>     exits 77 where strace cannot be used
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

THREADS = 3  # started by the test case [three]
FLAGS = {
    "CLONE_VM", "CLONE_FS", "CLONE_FILES", "CLONE_SIGHAND", "CLONE_THREAD", "CLONE_SYSVSEM",
    "CLONE_IO", "CLONE_SETTLS", "CLONE_PARENT_SETTID", "CLONE_CHILD_CLEARTID",
}


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def main():
    if shutil.which("strace") is None:
        skip("no strace")
    # The leak sanitizer is a tracer itself and fails under another one.
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        strace = ["strace", "-ff", "-e", "trace=clone", "-o", trace]
        if subprocess.run(strace + ["true"], capture_output=True).returncode != 0:
            skip("strace may not trace here")
        # Written one file a kernel thread, so that no line is torn by another's.
        test = subprocess.run(strace + [sys.argv[1], "[three]"], env=environment)
        if test.returncode != 0:
            sys.exit("the traced program failed")
        text = ""
        for name in os.listdir(folder):
            with open(os.path.join(folder, name)) as file:
                text += file.read()
    # libc's own threads come by clone3, or, where that is refused, by clone without CLONE_IO.
    ours = [line for line in text.splitlines() if line.startswith("clone(") and "CLONE_IO" in line]
    print("\n".join(ours))
    if len(ours) != THREADS:
        sys.exit(f"{len(ours)} raw clones for {THREADS} threads")
    for line in ours:
        flags = set(re.search(r"flags=([A-Z_|]+)", line).group(1).split("|"))
        if flags != FLAGS:
            sys.exit(f"unexpected flags: {sorted(flags ^ FLAGS)}")


main()

#!/usr/bin/env python3
"""The library built twice, from nothing, is the same archive byte by byte. [N9]

    reproducible_test.py ROOT

As one source, so that it takes seconds; its parts are then named by the folder, so that is the same twice.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONS = ["-Dtests=disabled", "-Dexamples=disabled", "-Dbench=disabled", "-Doptimization=2",
           "-Ddebug=false", "-Dunity=on", "-Dunity_size=1000"]


def build(root, folder):
    shutil.rmtree(folder, ignore_errors=True)
    for command in (["meson", "setup", *OPTIONS, folder, root], ["ninja", "-C", folder]):
        # A compiler cache would hand out the first build for the second.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"CCACHE_DISABLE": "1"})
    return (folder / "runtime/libweft.a").read_bytes()


def main():
    root = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        first, second = (build(root, Path(scratch) / "build") for _ in range(2))
    if first != second:
        at = next((i for i, pair in enumerate(zip(first, second)) if pair[0] != pair[1]),
                  min(len(first), len(second)))
        print(f"FAILED: archives of {len(first)} and {len(second)} bytes differ from byte {at} on")
        return 1
    print(f"{len(first)} bytes, twice the same")
    return 0


sys.exit(main())

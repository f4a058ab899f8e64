#!/usr/bin/env python3
"""No assembly object of the library is marked for shadow stacks (SHSTK); all are for branch tracking (IBT).

Fibers and adopted threads return through frames that they never called. The linker marks a program only
when all of its objects are marked, so one of ours keeps the shadow stack off wherever weft is linked.

usage: shadow_stack_test.py <libweft.a>     exits 77 without readelf
"""
import re
import shutil
import subprocess
import sys


def main():
    if shutil.which("readelf") is None:
        print("skipped: no readelf")
        sys.exit(77)
    notes = subprocess.run(["readelf", "-nW", sys.argv[1]], capture_output=True, text=True, check=True)
    objects = re.split(r"^File: .*\((.*)\)$", notes.stdout, flags=re.MULTILINE)[1:]
    assembly = {name: text for name, text in zip(objects[::2], objects[1::2]) if ".S." in name}
    for name, text in assembly.items():
        features = " ".join(re.findall(r"x86 feature: (.*)", text))
        print(name, features)
        if "SHSTK" in features or "IBT" not in features:
            sys.exit(f"{name} is marked '{features}'")
    if not assembly:
        sys.exit("no assembly object found")


main()

#!/usr/bin/env python3
"""Consumers: builds and runs somebody else's program against weft, offline, in a scratch folder.

    consumer_test.py subproject ROOT          weft as a meson subproject, found by the wrap's [provide]
    consumer_test.py installed ROOT BUILD     weft installed from BUILD, found by pkg-config

Both compile tests/consumer/main.cc with warnings as errors. The compiler is $CXX, or else c++.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CXX = shlex.split(os.environ.get("CXX", "c++"))


def run(*command, **environment):
    """Runs a command and returns what it printed; a failure ends the test and shows it."""
    done = subprocess.run([str(part) for part in command], text=True, env=os.environ | environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\nexit status {done.returncode}\n{done.stdout}")
    return done.stdout


def subproject(root, scratch):
    project, build = scratch / "project", scratch / "build"
    shutil.copytree(root / "tests/consumer/subproject", project)
    shutil.copy(root / "tests/consumer/main.cc", project)
    (project / "subprojects/weft").symlink_to(root, target_is_directory=True)

    run("meson", "setup", "--wrap-mode=nodownload", build, project)
    output = run("ninja", "-C", build)
    if "warning:" in output:
        sys.exit(f"the subproject builds with warnings:\n{output}")
    targets = json.loads((build / "meson-info/intro-targets.json").read_text())
    ours = [target["name"] for target in targets
            if target["subproject"] == "weft" and target["build_by_default"]]
    if ours != ["weft"]:
        sys.exit(f"the subproject builds more than the library: {ours}")
    run(build / "consumer")


def installed(root, scratch, build):
    run("meson", "install", "-C", build, "--no-rebuild", "--destdir", scratch)
    [description] = scratch.rglob("weft.pc")
    # The prefix moves to where the files really are: a scratch folder, not /usr/local.
    description.write_text(description.read_text().replace("prefix=/", f"prefix={scratch}/", 1))
    flags = run("pkg-config", "--cflags", "--libs", "weft", PKG_CONFIG_PATH=str(description.parent))
    program = scratch / "consumer"
    run(*CXX, "-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
        root / "tests/consumer/main.cc", "-o", program, *shlex.split(flags))
    run(program)


def main():
    kind, root, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="weft-consumer-") as scratch:
        {"subproject": subproject, "installed": installed}[kind](Path(root), Path(scratch), *rest)


if __name__ == "__main__":
    main()

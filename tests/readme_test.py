#!/usr/bin/env python3
"""The program in README.md compiles without a warning, and is what its own text says it is.

    readme_test.py ROOT COMPILER...

Its handler must be that of examples/echo_server.cc, but for where the limits come from.
"""

import re
import subprocess
import sys
from pathlib import Path

FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only",
         "-x", "c++", "-"]


def handler(source):
    """The body of echo() without comments and spaces."""
    body = re.search(r"^absl::Status echo\(.*?\n}", source, re.MULTILINE | re.DOTALL).group(0)
    return re.sub(r"\s+|//[^\n]*", "", body)


def main():
    root, compiler = Path(sys.argv[1]), sys.argv[2:]
    program = re.search(r"```cpp\n(.*?)```", (root / "README.md").read_text(), re.DOTALL).group(1)
    example = (root / "examples/echo_server.cc").read_text()
    wanted = handler(example).replace("constabsl::Durationidle_limit=absl::GetFlag(FLAGS_idle_timeout);", "")
    if handler(program) != wanted.replace("idle_limit", "absl::Seconds(30)"):
        print("echo() in README.md is not that of examples/echo_server.cc")
        return 1
    flags = subprocess.run(["pkg-config", "--cflags", "absl_statusor", "absl_time"], text=True,
                           stdout=subprocess.PIPE, check=True).stdout.split()
    return subprocess.run([*compiler, f"-I{root}/runtime/include", *flags, *FLAGS], input=program,
                          text=True).returncode


if __name__ == "__main__":
    sys.exit(main())

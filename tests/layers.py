#!/usr/bin/env python3
"""Layers: fails when a file includes something above it, or by the wrong kind of include.

    arch < base < os < sched < sync, io (peers)     runtime/include/weft: the public API beside them

Private headers are included from the root, in quotes; public ones as <weft/...>, by sched and above only.
Public headers include each other, std and a few names of Abseil: what users compile is ours or standard.

    python3 tests/layers.py [root]
"""

import re
import sys
from pathlib import Path

BELOW = {  # folder: the folders it may include besides itself
    "arch": [],
    "runtime/base": ["arch"],
    "runtime/os": ["arch", "runtime/base"],
    "runtime/sched": ["arch", "runtime/base", "runtime/os"],
    "runtime/sync": ["arch", "runtime/base", "runtime/os", "runtime/sched"],
    "runtime/io": ["arch", "runtime/base", "runtime/os", "runtime/sched"],
    "runtime/include/weft": [],
    # raw_threads shows the bare form of arch, and million measures what it occupies; all others are users.
    "examples": ["arch", "bench"],
    "bench": ["arch", "runtime/base", "runtime/os", "runtime/sched"],
    "tests": ["arch", "runtime/base", "runtime/os", "runtime/sched", "runtime/sync", "runtime/io", "bench"],
}
# Under the model checker the alias of all atomics turns into the checker's, which is part of the tests.
EXCEPTIONS = [("runtime/base/atomic.h", "tests/model/atomic.h"),
              ("runtime/base/atomic.h", "tests/model/relacy_atomic.h"),
              ("runtime/base/mutex.h", "tests/model/blocking.h")]
BLIND_TO_PUBLIC = ["arch", "runtime/base", "runtime/os"]
PUBLIC_MAY = re.compile(r"[a-z_0-9]+|weft/.+|absl/status/status(or)?\.h|absl/time/(clock|time)\.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def layer_of(path):
    return next((layer for layer in BELOW if path.startswith(layer + "/")), None)


def violation(layer, bracket, header, root):
    """What is wrong with one include of a file in `layer`, or None."""
    if bracket == '"':
        if not (root / header).is_file():
            return "a private include is spelled from the root"
        target = layer_of(header)
        if target == "runtime/include/weft":
            return "a public header is included as <weft/...>"
        if layer == "runtime/include/weft":
            return "a public header includes a private one"
        if target != layer and target not in BELOW[layer]:
            return f"{layer} is not above {target}"
    elif header.startswith("weft/") and layer in BLIND_TO_PUBLIC:
        return f"{layer} does not know the public API"
    elif layer_of(header):
        return "a private include is written in quotes"
    elif layer == "runtime/include/weft" and not PUBLIC_MAY.fullmatch(header):
        return "public headers include only <weft/...>, std, and Abseil's status and time"
    return None


def violations(root):
    found = []
    for path in sorted(file for layer in BELOW for file in (root / layer).rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix not in (".h", ".cc", ".S") or name.startswith("tests/consumer/"):
            continue
        for bracket, header in INCLUDE.findall(path.read_text()):
            problem = violation(layer_of(name), bracket, header, root)
            if problem and (name, header) not in EXCEPTIONS:
                found.append(f"{name}: include of {header}: {problem}")
    return found


if __name__ == "__main__":
    problems = violations(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    print("\n".join(problems) or "every include is within its layer")
    sys.exit(1 if problems else 0)

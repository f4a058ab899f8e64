#!/usr/bin/env python3
"""layers.py finds what it is for: each planted violation, and nothing in the tree it is planted in."""

import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
import layers

TREE = {
    "arch/x86_64/switch.h": "#include <cstdint>\n",
    "runtime/base/list.h": '#include <cstddef>\n#include "arch/x86_64/switch.h"\n',
    "runtime/os/ring.h": '#include <liburing.h>\n#include "runtime/base/list.h"\n',
    "runtime/sched/worker.h": '#include <weft/fiber.h>\n#include "runtime/os/ring.h"\n',
    "runtime/sync/mutex.cc": '#include <weft/fiber.h>\n#include "runtime/sched/worker.h"\n',
    "runtime/io/socket.h": '#include "runtime/sched/worker.h"\n',
    "runtime/include/weft/fiber.h": "#include <weft/internal/wait.h>\n#include <absl/status/status.h>\n",
    "runtime/include/weft/internal/wait.h": "#include <atomic>\n",
}
PLANTED = [  # file, a line that is wrong there, words of the complaint
    ("runtime/base/list.h", '#include "runtime/os/ring.h"', "runtime/base is not above runtime/os"),
    ("runtime/sync/mutex.cc", '#include "runtime/io/socket.h"', "runtime/sync is not above runtime/io"),
    ("runtime/os/ring.h", "#include <weft/fiber.h>", "does not know the public API"),
    ("runtime/include/weft/fiber.h", '#include "runtime/base/list.h"', "includes a private one"),
    ("runtime/include/weft/fiber.h", "#include <absl/strings/string_view.h>", "only <weft/...>"),
    ("runtime/include/weft/fiber.h", "#include <unistd.h>", "only <weft/...>"),
    ("runtime/sched/worker.h", "#include <runtime/os/ring.h>", "written in quotes"),
    ("runtime/sched/worker.h", '#include "fiber_state.h"', "spelled from the root"),
    ("runtime/sched/worker.h", '#include "runtime/include/weft/fiber.h"', "as <weft/...>"),
]


def plant(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def main():
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        plant(root, TREE)
        if layers.violations(root):
            failures.append(f"the tree without violations: {layers.violations(root)}")
        for name, line, words in PLANTED:
            plant(root, {name: TREE[name] + line + "\n"})
            found = layers.violations(root)
            if len(found) != 1 or words not in found[0]:
                failures.append(f"{line} planted in {name}: found {found}")
            plant(root, {name: TREE[name]})
    print("\n".join(failures) or f"{len(PLANTED)} planted violations found")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

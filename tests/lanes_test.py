#!/usr/bin/env python3
"""tools/lanes.py judges a test's log rightly: a gate that lets something through is worse than none."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source folder stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import lanes

FALLBACK = "weft: fallback: plain threads, because clone said EPERM"
CASES = [  # meson's result, what the test printed, is it about falling back, the verdict, the remarks
    ("OK", "all is well", False, "passed", []),
    ("FAIL", "", False, "failed", ["fail, exit status 9"]),
    ("TIMEOUT", "", False, "failed", ["timeout, exit status 9"]),
    ("ERROR", "", False, "failed", ["error, exit status 9"]),
    ("UNEXPECTEDPASS", "", False, "failed", ["unexpectedpass, exit status 9"]),
    ("SKIP", "skipped: needs root", False, "skipped", ["needs root"]),
    ("SKIP", "", False, "skipped", ["gave no reason"]),
    ("OK", "skipped: needs root", False, "passed", ["needs root"]),
    ("OK", FALLBACK, False, "failed", [FALLBACK]),
    ("SKIP", FALLBACK, False, "failed", [FALLBACK]),
    ("OK", FALLBACK, True, "passed", []),
    ("FAIL", FALLBACK, True, "failed", ["fail, exit status 9"]),
]


def main():
    failures = []
    for result, printed, about_fallback, verdict, remarks in CASES:
        for stream in ("stdout", "stderr"):
            row = {"result": result, "returncode": 9, stream: printed + "\n"}
            judged = lanes.judge(row, about_fallback)
            if judged != (verdict, remarks):
                failures.append(f"{result} with {printed!r} on {stream}: judged {judged}")
    print("\n".join(failures) or f"{len(CASES)} kinds of result judged rightly")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

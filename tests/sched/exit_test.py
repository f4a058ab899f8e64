#!/usr/bin/env python3
"""How a process with a running runtime ends: the right status, never a SIGSEGV, and a report where due.

usage: exit_test.py <endings> <group>     groups: exits, reports

Every ending of `exits` is tried in ROUNDS rounds, with workers that switch fibers and with workers whose
fibers never pause, from main's thread and from a fiber. WEFT_SOAK makes it 1,000 rounds. [I9]
"""
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROUNDS = 1000 if os.environ.get("WEFT_SOAK") else 50
LIMIT_S = 60  # a hang, on any machine
STATUS = 7

# (how, may static destructors run, the status that is expected)
EXITS = [
    ("exit", True, STATUS),
    ("return", True, STATUS),
    ("quick_exit", False, STATUS),
    ("_exit", False, STATUS),
    ("abort", False, -signal.SIGABRT),
    ("terminate", False, -signal.SIGABRT),
    ("throw", False, -signal.SIGABRT),
]


def environment():
    """As it is, but an abort stays an abort for the sanitizers, and LSan does not change the status.

    TSan sleeps at the end of a process, for a second unless told otherwise, to see what runs on then. So
    may our fibers; 20 ms are thousands of switches.
    """
    result = dict(os.environ)
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        result[name] = result.get(name, "") + ":handle_abort=0:detect_leaks=0:atexit_sleep_ms=20"
    return result


def ending(program, *arguments):
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace",
                              env=environment(), timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return "hangs", "", ""
    return done.returncode, done.stdout, done.stderr


def check_exit(program, how, destructors, expected, load, where):
    status, output, errors = ending(program, how, load, where)
    wrong = []
    if status != expected:
        wrong.append(f"status {status} and not {expected}")
    destroyed = "destroyed" in output
    if destroyed and not destructors:
        wrong.append("static destructors ran")
    if not destroyed and destructors and load == "switching":
        wrong.append("static destructors did not run")
    return [f"{how} {load} {where}: {', '.join(wrong)}\n{errors}"] if wrong else []


def exits(program):
    jobs = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for how, destructors, expected in EXITS:
            for load in ("switching", "spinning"):
                for where in ("main", "fiber"):
                    if where == "fiber" and how in ("return", "throw"):
                        continue  # return is run()'s own end; throw has a group of its own below
                    for _ in range(ROUNDS):
                        jobs.append(pool.submit(check_exit, program, how, destructors, expected, load,
                                                where))
        for _ in range(ROUNDS):
            jobs.append(pool.submit(check_exit, program, "throw", False, -signal.SIGABRT, "switching",
                                    "fiber"))
        failures = [line for job in jobs for line in job.result()]
    print(f"endings={len(jobs)} wrong={len(failures)}")
    return failures[:5]


def check_report(program, arguments, expected, texts):
    status, output, errors = ending(program, *arguments)
    said = output + errors
    missing = [text for text in texts if text not in said]
    if status in expected and not missing:
        return []
    return [f"{' '.join(arguments)}: status {status}, expected {expected}; not said: {missing}\n{said}"]


def reports(program):
    segv = {-signal.SIGSEGV}
    # A sanitizer that takes the fault after our report ends the process with a status of its own.
    sanitized = {1, 66}
    rows = [
        # [G1] [G6] the fiber, by name and spawn site, and the signal for the core file
        (("overflow",), segv | sanitized,
         ["weft: stack overflow in fiber ", '"digger" spawned at ', "endings.cc:", "endings(+0x"]),
        # [A8] what nobody took, with its text
        (("lost_exception",), {-signal.SIGABRT}, ["lost on the way"]),
        (("hanging_run",), {70}, ["clean-up hangs", '"stubborn" spawned at ', "endings.cc:"]),
        (("hanging_destructor",), {70}, ["clean-up hangs", '"stubborn" spawned at ']),
        (("static_runtime", "idle"), {STATUS}, ["destroyed"]),
        (("static_runtime", "switching"), {STATUS}, ["destroyed"]),
        (("static_group",), {STATUS}, ["destroyed"]),
        (("misuse", "scope"), {-signal.SIGABRT}, ["use a FiberGroup"]),
        (("misuse", "timeout"), {-signal.SIGABRT}, ["there is none on this thread"]),
        (("misuse", "background"), {-signal.SIGABRT}, ["there is none here"]),
    ]
    return [line for row in rows for line in check_report(program, *row)]


def main():
    failures = {"exits": exits, "reports": reports}[sys.argv[2]](sys.argv[1])
    if failures:
        sys.exit("\n".join(failures))


main()

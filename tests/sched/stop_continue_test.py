#!/usr/bin/env python3
"""A process that is stopped and continued at any moment goes on: fibers, timers and the ring. [I11]

usage: stop_continue_test.py <endings>

The program answers each line on its stdin once its fibers have moved on: switched, slept and received.
"""
import os
import signal
import subprocess
import sys

ROUNDS = 500 if os.environ.get("WEFT_SOAK") else 50
LIMIT_S = 120  # a hang, on any machine


def main():
    program = subprocess.Popen([sys.argv[1], "stopped_again_and_again"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, bufsize=1)
    signal.signal(signal.SIGALRM, lambda *_: (program.kill(), sys.exit("it hangs")))
    signal.alarm(LIMIT_S)
    for turn in range(ROUNDS):
        program.send_signal(signal.SIGSTOP)
        pid, status = os.waitpid(program.pid, os.WUNTRACED)
        if pid != program.pid or not os.WIFSTOPPED(status):
            sys.exit(f"it ended in round {turn} with wait status {status}")
        program.send_signal(signal.SIGCONT)
        program.stdin.write("\n")
        if program.stdout.readline() != "moved on\n":
            sys.exit(f"no answer in round {turn}")
    program.stdin.close()
    if program.wait() != 0:
        sys.exit(f"exit status {program.returncode}")
    print(f"rounds={ROUNDS}")


main()

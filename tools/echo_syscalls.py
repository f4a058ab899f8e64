"""System calls of the echo server, counted by strace over 100,000 echoes at 500 connections.

    python3 tools/echo_syscalls.py --build build/release [--count 100000] [--connections 500] [--workers 1]

Prints strace's table, and the calls for each echo. With the design's policies they are far below one:
a turn's operations go to the kernel in one entry.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--build", type=Path, required=True)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--connections", type=int, default=500)
    options.add_argument("--workers", type=int, default=1)
    wanted = options.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is not installed")

    with tempfile.NamedTemporaryFile("r") as table:
        # -D: the server stays our child, so that the signal is its own.
        server = subprocess.Popen(
            ["strace", "-D", "-f", "-c", "-o", table.name, wanted.build / "examples/echo_server", "--port=0",
             f"--workers={wanted.workers}"], stdout=subprocess.PIPE, text=True)
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        load = subprocess.run([wanted.build / "bench/echo_load", f"--port={port}",
                               f"--connections={wanted.connections}", f"--count={wanted.count}"])
        server.send_signal(signal.SIGTERM)
        server.wait()
        text = table.read()
        while "total" not in text:  # the tracer writes it after the end of the server
            text += table.read()
    print(text)
    calls = int(re.search(r"([0-9]+)(?: +[0-9]+)? +total", text).group(1))
    print(f"echo_syscalls connections={wanted.connections} echoes={wanted.count} calls={calls} "
          f"calls_per_echo={calls / wanted.count:.4f}")
    return load.returncode


if __name__ == "__main__":
    sys.exit(main())

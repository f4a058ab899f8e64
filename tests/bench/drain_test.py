"""SIGTERM under load: every connection ends between two replies, and the server ends by itself.

    drain_test.py path/to/echo_server path/to/echo_load

The load keeps several requests in flight on each connection and other connections sit idle, while
echo_load sends the signal. The connections of both kinds must end in order.
"""

import subprocess
import sys

LIMIT_SECONDS = 90  # a hang is a failure; nothing is judged by speed


def main():
    echo_server, echo_load = sys.argv[1:]
    server = subprocess.Popen([echo_server, "--port", "0", "--workers", "2"],
                              stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().rsplit(":", 1)[1].strip()
        load = subprocess.run(
            [echo_load, "--port", port, "--connections", "50", "--idle", "20", "--pipeline", "4",
             "--drain-check", "--server-pid", str(server.pid), "--terminate-after", "0.2",
             "--seconds", str(LIMIT_SECONDS), "--stall", str(LIMIT_SECONDS)],
            timeout=2 * LIMIT_SECONDS)
        status = server.wait(LIMIT_SECONDS)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    print(f"echo_load ended with {load.returncode}, the server with {status}")
    return 1 if load.returncode != 0 or status != 0 else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The example echo server from outside: limits, idle clients, signals, and starts that must fail.

usage: echo_server_test.py <echo_server> <echo_load> [case...]

A server that hangs is ended by the test's time limit; nothing is judged by the clock, but for the CPU
time of a server that has nothing to do.
"""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

SERVER, LOAD = sys.argv[1], sys.argv[2]
LIMIT_S = 90  # for one step; only a hang takes so long


class Server:
    """A running server. `descriptors` is its ulimit -n."""

    def __init__(self, *flags, descriptors=None):
        def limit():
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.process = subprocess.Popen([SERVER, "--port=0", *flags], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, preexec_fn=limit)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1]) if line.startswith("listening on ") else None

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def end(self, *signals):
        """Sends the signals, and returns the exit status and the lines of stderr."""
        for number in signals:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, errors.splitlines()

    def cpu_s(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def check(fact, text):
    if not fact:
        raise AssertionError(text)


def ask(client, text=b"hello"):
    client.sendall(text)
    answer = b""
    while len(answer) < len(text):
        part = client.recv(100)
        check(part, f"the server ended a connection after {answer!r} of {text!r}")
        answer += part
    check(answer == text, f"{answer!r} came back for {text!r}")


def ended(client):
    """Waits for the end of a connection."""
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        pass
    client.close()


def signals_drain():
    for number in signal.SIGTERM, signal.SIGINT:
        with Server("--workers=2") as server:
            clients = [server.connect() for _ in range(20)]
            for client in clients:
                ask(client)
            server.process.send_signal(number)
            for client in clients:
                check(client.recv(10) == b"", "a client got something else than the end")
                client.close()
            status, lines = server.end()
            check(status == 0, f"exit status {status} after {number!r}: {lines}")
            check(lines[-1:] == ["serve: drained 20 connections"], f"last line: {lines}")


def drain_under_load():
    for workers in 1, 2:
        with Server(f"--workers={workers}") as server:
            load = subprocess.run(
                [LOAD, f"--port={server.port}", "--connections=200", "--threads=1", "--drain-check",
                 "--terminate-after=0.5", f"--server-pid={server.process.pid}"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S)
            check(load.returncode == 0, f"echo_load: {load.stdout}")
            status, lines = server.end()
            check(status == 0, f"exit status {status}: {lines}")
            check(lines[-1:] == ["serve: drained 200 connections"], f"last line: {lines}")


def second_signal_cancels():
    with Server() as server:
        client = server.connect()
        ask(client)  # it is served
        client.setblocking(False)
        try:  # a client that reads nothing: the server's reply waits
            while True:
                client.send(bytes(65536))
        except BlockingIOError:
            pass
        server.process.send_signal(signal.SIGTERM)
        try:
            while True:  # until it has begun to drain
                socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S).close()
        except ConnectionError:
            pass
        check(server.process.poll() is None, "it ended before the second signal")
        began = time.monotonic()
        status, lines = server.end(signal.SIGTERM)
        print(f"    ended {time.monotonic() - began:.3f} s after the second signal")
        check(status == 0, f"exit status {status}: {lines}")
        # Of the connections that were made to see the draining begin some may have been accepted.
        drained = re.fullmatch(r"serve: drained (\d+) connections", lines[-1] if lines else "")
        check(drained and int(drained[1]) >= 1, f"last line: {lines}")
        client.close()


def limit_of_connections():
    with Server("--max_connections=3") as server:
        inside = [server.connect() for _ in range(3)]
        for client in inside:
            ask(client)
        outside = [server.connect() for _ in range(30)]
        for client in outside:
            client.sendall(b"wait")
        for _ in range(100):
            for client in inside:
                ask(client)  # those inside are served as before
        for client in outside:
            client.setblocking(False)
            try:
                check(not client.recv(10), "a client beyond the limit was answered")
                check(False, "a client beyond the limit was dropped")
            except BlockingIOError:
                client.settimeout(LIMIT_S)
        for client in inside:
            client.close()
        for client in outside:  # first come, first served
            check(client.recv(10) == b"wait", "a client that waited was not served")
            client.close()
        check(server.end(signal.SIGTERM)[0] == 0, "exit status")


def idle_clients():
    with Server("--idle_timeout=100ms") as server:
        silent, spoke = server.connect(), server.connect()
        ask(spoke)
        for client in silent, spoke:
            check(client.recv(10) == b"", "an idle client got something else than the end")
        with server.connect() as another:
            ask(another)
        check(server.end(signal.SIGTERM)[0] == 0, "exit status")


def fails(words, *flags, **process):
    """Starts a server that cannot run: one clear line, exit status 1, no crash."""
    done = subprocess.run([SERVER, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=LIMIT_S, **process)
    lines = done.stderr.splitlines()
    check(done.returncode == 1, f"{flags}: exit status {done.returncode}: {lines}")
    check(len(lines) == 1 and all(word in lines[0] for word in words), f"{flags}: {lines}")
    check(done.stdout == "", f"{flags}: printed {done.stdout!r}")


def bad_addresses():
    with Server() as server:
        fails(["bind to 127.0.0.1", "Address already in use"], f"--port={server.port}")
    fails(["nonsense:7000", "IPv4"], "--address=nonsense")
    fails(["bind to 192.0.2.1", "Cannot assign requested address"], "--address=192.0.2.1", "--port=0")
    fails(["bind to [2001:db8::1]"], "--address=[2001:db8::1]", "--port=0")


def no_permission():
    first = int(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read())
    if os.geteuid() == 0:
        other = {"user": 65534, "group": 65534, "extra_groups": []}
        try:
            subprocess.run([SERVER, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           timeout=LIMIT_S, **other)
        except PermissionError:
            print("skipped: another user may not run programs from the build folder")
            return
    else:
        other = {}
    if first <= 1:
        print("skipped: every port is open to everybody here")
        return
    fails(["bind to 127.0.0.1:1", "Permission denied"], "--port=1", **other)


def few_descriptors():
    started = refused = 0
    for descriptors in range(4, 32):
        with Server("--workers=2", descriptors=descriptors) as server:
            if server.port is None:
                status, lines = server.end()
                check(status in (1, 127), f"{descriptors} descriptors: status {status}: {lines}")
                check(lines and "Too many open files" in lines[-1] or status == 127,
                      f"{descriptors} descriptors: {lines}")
                check(len(lines) == 1 or status == 127, f"{descriptors} descriptors: {lines}")
                refused += 1
                continue
            started += 1
            has_room = len(os.listdir(f"/proc/{server.process.pid}/fd")) < descriptors
            clients = [server.connect() for _ in range(2 * descriptors)]
            for client in clients:  # each is answered, or turned away, or waits for its turn
                client.sendall(b"x")
            before = server.cpu_s()
            time.sleep(0.1)
            spent = server.cpu_s() - before
            check(spent < 0.08, f"{descriptors} descriptors: {spent} s of CPU in 0.1 s: it spins")
            for client in clients:
                client.close()
            while has_room:  # served again once descriptors are free
                with server.connect() as client:
                    client.sendall(b"again")
                    try:
                        if client.recv(10):
                            break
                    except ConnectionError:
                        pass
            status, lines = server.end(signal.SIGTERM)
            check(status == 0, f"{descriptors} descriptors: exit status {status}: {lines}")
    check(started > 0 and refused > 0, f"started {started}, refused {refused}")


CASES = [signals_drain, drain_under_load, second_signal_cancels, limit_of_connections, idle_clients,
         bad_addresses, no_permission, few_descriptors]


def main():
    wanted = sys.argv[3:]
    failures = 0
    for case in CASES:
        if wanted and case.__name__ not in wanted:
            continue
        print(case.__name__, flush=True)
        try:
            case()
        except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
            failures += 1
            print(f"  FAILED: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

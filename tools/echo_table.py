#!/usr/bin/env python3
"""Echo servers side by side: requests per second, latency, and what each request costs the server.

    tools/echo_table.py --build build

Every round runs every server once at every number of connections, in alternating order; a server and the
load each have a CPU of their own where there are two. The table shows medians over the rounds; the
ratios are medians of the ratios within a round, because a noisy machine is noisy for both.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SERVERS = {
    "weft": "{build}/examples/echo_server --address 127.0.0.1 --port {port} --workers {workers}",
    "epoll": "{build}/bench/peers/epoll_echo --port {port} --threads {workers} --seconds {limit}",
    "uring": "{build}/bench/peers/uring_echo --port {port} --threads {workers} --seconds {limit}",
}
TITLES = {"weft": "weft", "epoll": "epoll, C", "uring": "io_uring, C"}
COST = "server_cpu_us_per_request"
START_LIMIT_SECONDS = 10
STOP_LIMIT_SECONDS = 15


CANNOT_RUN_HERE = 77  # exit status, as in the tests


class Failure(Exception):
    """A server or a load did not do what it must; the text says which and what it printed."""


class Unavailable(Exception):
    """A server cannot run on this machine; the text says why."""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="build directory (%(default)s)")
    parser.add_argument("--servers", default=",".join(SERVERS), help="some of %(default)s")
    parser.add_argument("--connections", default="50,500,5000", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of each server (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="bytes of a request (%(default)s)")
    parser.add_argument("--pipeline", type=int, default=1, help="requests in flight (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run (%(default)s)")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="one short round: does it work?")
    parser.add_argument("--metrics", action="store_true",
                        help="print lines 'echo_50 cpu_us=6.4' instead of the table, for tools/bench.py")
    parser.add_argument("--json", metavar="FILE", help="write every run and the table there")
    arguments = parser.parse_args()
    arguments.servers = arguments.servers.split(",")
    for name in arguments.servers:
        if name not in SERVERS:
            parser.error(f"--servers: {name} is none of {', '.join(SERVERS)}")
    try:
        arguments.connections = [int(n) for n in arguments.connections.split(",")]
    except ValueError:
        parser.error("--connections: expected whole numbers with commas between them")
    if min(arguments.connections + [arguments.workers, arguments.rounds]) < 1:
        parser.error("--connections, --workers and --rounds must be at least 1")
    if arguments.smoke:
        arguments.rounds, arguments.seconds, arguments.warmup = 1, 0.1, 0.02
        arguments.connections = [min(n, 50) for n in arguments.connections[:1]]
    return arguments


def raise_descriptor_limit(connections):
    """Returns the numbers of connections that can be had here, after saying which cannot."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    spare = 64
    possible = [n for n in connections if hard == resource.RLIM_INFINITY or n + spare <= hard]
    for n in sorted(set(connections) - set(possible)):
        print(f"no row for {n} connections: at most {hard} descriptors may be open (ulimit -Hn)",
              file=sys.stderr)
    return possible


def pinning(workers):
    """Returns the CPUs of the server and of the load, and how to say it."""
    cpus = sorted(os.sched_getaffinity(0))
    if workers > 1:
        return set(cpus), set(cpus), "not pinned"
    if len(cpus) == 1:
        return set(cpus), set(cpus), f"server and load share CPU {cpus[0]}: only one is to be had"
    return {cpus[0]}, {cpus[1]}, f"server on CPU {cpus[0]}, load on CPU {cpus[1]}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process, from its start until it has answered SIGTERM by exit status 0."""

    def __init__(self, name, arguments, cpus):
        self.name = name
        self.port = free_port()
        limit = int(START_LIMIT_SECONDS + 60 + arguments.warmup + arguments.seconds)
        command = SERVERS[name].format(
            build=arguments.build, port=self.port, workers=arguments.workers, limit=limit).split()
        if not os.access(command[0], os.X_OK):
            raise Failure(f"{name}: there is no {command[0]}; build it, or leave it out by --servers")
        self.output = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            command, stdout=self.output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def __enter__(self):
        try:
            self.wait_until_listening()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind, value, trace):
        status = self.end()
        if kind is None and status != 0:
            raise Failure(f"{self.name}: ended with status {status} on SIGTERM\n{self.said()}")

    def wait_until_listening(self):
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() == CANNOT_RUN_HERE:
                raise Unavailable(f"{self.name} cannot run here\n{self.said()}")
            if self.process.poll() is not None:
                raise Failure(f"{self.name}: ended at once, status {self.process.returncode}\n{self.said()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise Failure(f"{self.name}: does not listen on port {self.port} after "
                      f"{START_LIMIT_SECONDS} s\n{self.said()}")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"none within {STOP_LIMIT_SECONDS} s (killed)"

    def said(self):
        self.output.seek(0)
        return "".join(f"  | {line.rstrip()}\n" for line in self.output.readlines()[-40:])


def those_that_run_here(arguments, cpus):
    """Starts and ends each server once, and says which must be left out."""
    available = []
    for name in arguments.servers:
        try:
            with Server(name, arguments, cpus):
                available.append(name)
        except Unavailable as reason:
            print(f"no rows for {reason}", end="", file=sys.stderr)
    return available


def run_once(name, connections, arguments, server_cpus, load_cpus):
    with Server(name, arguments, server_cpus) as server:
        load = subprocess.run(
            [f"{arguments.build}/bench/echo_load", "--port", str(server.port),
             "--connections", str(connections), "--size", str(arguments.size),
             "--pipeline", str(arguments.pipeline), "--seconds", str(arguments.seconds),
             "--warmup", str(arguments.warmup), "--server-pid", str(server.process.pid), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, load_cpus),
            timeout=arguments.seconds + arguments.warmup + 60)
        if load.returncode != 0:
            raise Failure(f"{name}, {connections} connections: echo_load ended with status "
                          f"{load.returncode}\n{load.stderr}{load.stdout}{server.said()}")
    return json.loads(load.stdout)


def show_progress(done, total, what):
    if sys.stderr.isatty():
        print(f"\r\033[K[{done + 1}/{total}] {what}", end="", file=sys.stderr, flush=True)


def measure(arguments, server_cpus, load_cpus):
    """Returns runs[name, connections] = one result a round."""
    runs = {(name, n): [] for n in arguments.connections for name in arguments.servers}
    total = len(runs) * arguments.rounds
    done = 0
    for round_number in range(arguments.rounds):
        order = arguments.servers if round_number % 2 == 0 else arguments.servers[::-1]
        for n in arguments.connections:
            for name in order:
                show_progress(done, total, f"round {round_number + 1}: {TITLES[name]}, {n} connections")
                runs[name, n].append(run_once(name, n, arguments, server_cpus, load_cpus))
                done += 1
        if not sys.stderr.isatty() and not arguments.smoke:
            print(f"round {round_number + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return runs


def ratio(mine, theirs):
    pairs = [(a.get(COST), b.get(COST)) for a, b in zip(mine, theirs)]
    ratios = [a / b for a, b in pairs if a and b]
    return statistics.median(ratios) if ratios else None


def summarize(runs):
    rows = []
    for (name, n), mine in runs.items():
        row = {"server": name, "connections": n}
        for key in ("requests_per_second", "p50_us", "p99_us", COST):
            values = [run[key] for run in mine if key in run]
            row[key] = statistics.median(values) if values else None
        for peer in ("epoll", "uring"):
            row[f"ratio_to_{peer}"] = ratio(mine, runs[peer, n]) if (peer, n) in runs else None
        rows.append(row)
    return rows


def print_table(rows):
    columns = [("server", 14), ("connections", 12), ("requests/s", 12), ("p50 us", 10), ("p99 us", 10),
               ("server CPU us", 14), ("to epoll", 9), ("to uring", 9)]
    print("".join(f"{title:<{width}}" if i == 0 else f"{title:>{width}}"
                  for i, (title, width) in enumerate(columns)))
    previous = None
    for row in rows:
        if previous not in (None, row["connections"]):
            print()
        previous = row["connections"]
        cells = [TITLES[row["server"]], row["connections"], f"{row['requests_per_second']:,.0f}",
                 f"{row['p50_us']:,.1f}", f"{row['p99_us']:,.1f}", format_or_dash(row[COST], 3),
                 format_or_dash(row["ratio_to_epoll"], 2), format_or_dash(row["ratio_to_uring"], 2)]
        print("".join(f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                      for i, (cell, (_, width)) in enumerate(zip(cells, columns))))


def print_metrics(rows, size, pipeline):
    """One line a row: echo_50, epoll_echo_50, echo_4k_50, echo_x16_50, as bench/targets.tsv calls them."""
    kind = ("" if size == 64 else f"_{size // 1024}k" if size % 1024 == 0 else f"_{size}b") + (
        "" if pipeline == 1 else f"_x{pipeline}")
    for row in rows:
        owner = "" if row["server"] == "weft" else row["server"] + "_"
        print(f"{owner}echo{kind}_{row['connections']} cpu_us={row[COST]:.4f} "
              f"requests_per_second={row['requests_per_second']:.0f} "
              f"p50_us={row['p50_us']:.1f} p99_us={row['p99_us']:.1f}")


def format_or_dash(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def main():
    arguments = parse_arguments()
    arguments.connections = raise_descriptor_limit(arguments.connections)
    server_cpus, load_cpus, pinned = pinning(arguments.workers)
    header = (f"{arguments.size} B, {arguments.pipeline} in flight, {arguments.workers} worker(s), "
              f"{arguments.rounds} round(s) of {arguments.seconds:g} s, {pinned}")
    if shutil.which(f"{arguments.build}/bench/echo_load") is None:
        print(f"echo_table: there is no {arguments.build}/bench/echo_load; build first", file=sys.stderr)
        return 2
    if not arguments.metrics:
        print(header, flush=True)
    try:
        arguments.servers = those_that_run_here(arguments, server_cpus)
        runs = measure(arguments, server_cpus, load_cpus)
    except Failure as failure:
        print(f"\necho_table: {failure}", file=sys.stderr)
        return 1
    rows = summarize(runs)
    if arguments.metrics:
        print_metrics(rows, arguments.size, arguments.pipeline)
    else:
        print_table(rows)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"what": header, "rows": rows,
                       "runs": [{"server": name, "connections": n, "rounds": results}
                                for (name, n), results in runs.items()]}, file, indent=1)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

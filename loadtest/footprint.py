"""How fast mobula starts and how much memory it takes when idle.

Three figures: time from exec to the first 200 of a no-op application; the proportional set size
(PSS: shared pages counted once) of all its processes, idle; time to `/healthz` 200 with the three
default models from the cache, and the PSS then. Standard library only.

Not here: throughput (hop.sh) and latency under load (run.sh).
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTS = int(os.environ.get("STARTS", "15"))
MODEL_STARTS = int(os.environ.get("MODEL_STARTS", "5"))
IDLE_SECONDS = 3.0  # the allocator and the start-up buffers settle
START_SECONDS_MAX = 60.0
POLL_SECONDS = 0.001

CONFIG = """\
http_options: {{host: 127.0.0.1, port: {http}}}
grpc_options: {{port: {grpc}}}
applications:
  - name: app
    route_prefix: /
    import_path: {import_path}
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers_200(port: int, path: str) -> bool:
    """One request by hand: a client library would cost more than what is measured."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            todo += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no Pss of process {pid}")


def start(binary: str, import_path: str, path: str, idle: bool) -> tuple[float, list[int]]:
    """Starts once; seconds to the first 200, and each process's PSS when `idle` is asked for."""
    http, grpc, admin = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "serve.yaml")
        config.write_text(CONFIG.format(http=http, grpc=grpc, import_path=import_path))
        command = [binary, "run", str(config), "--num-cpus", "8"]
        command += ["--admin-addr", f"127.0.0.1:{admin}", "--state-dir", f"{folder}/state"]
        with Path(folder, "log").open("wb") as log:
            began = time.monotonic()
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not answers_200(http, path):
                if process.poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                    sys.exit(f"mobula did not start:\n{Path(folder, 'log').read_text()}")
                time.sleep(POLL_SECONDS)
            seconds = time.monotonic() - began
            if not idle:
                return seconds, []
            time.sleep(IDLE_SECONDS)
            return seconds, [pss_kib(pid) for pid in tree(process.pid)]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def report(binary: str, title: str, import_path: str, path: str, starts: int) -> None:
    seconds = [start(binary, import_path, path, False)[0] for _ in range(starts)]
    _, memory = start(binary, import_path, path, True)
    print(f"{title}: {starts} starts")
    print(f"  first 200  median {statistics.median(seconds):.3f} s, max {max(seconds):.3f} s")
    print(f"  raw        {' '.join(f'{value:.3f}' for value in seconds)}")
    parts = " + ".join(f"{kib / 1024:.1f}" for kib in memory)
    print(f"  idle PSS   {sum(memory) / 1024:.1f} MiB in {len(memory)} processes ({parts})")


def main() -> None:
    binary = sys.argv[1]
    report(binary, "no-op", "mobula.apps:noop", "/", STARTS)
    report(binary, "three default models", "mobula.apps:rag", "/healthz", MODEL_STARTS)


if __name__ == "__main__":
    main()

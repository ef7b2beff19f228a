"""The control plane alone at size: one real head on a real etcd, workers and routers that only
speak to it (crates/head/examples/fleet.rs).

    scale.py MOBULA ETCD FLEET

Prints a table: how long everything took, how long the head's passes are, what it weighs, how
long a change needs to reach all routers, and what it writes into etcd while nothing changes.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import BinaryIO

from takeover import ask, free_port

APPLICATIONS = int(os.environ.get("APPLICATIONS", "1000"))
REPLICAS = int(os.environ.get("REPLICAS", "10"))  # of each
WORKERS = int(os.environ.get("WORKERS", "500"))
ROUTERS = int(os.environ.get("ROUTERS", "50"))
CHANGES = int(os.environ.get("CHANGES", "20"))
QUIET_SECONDS = int(os.environ.get("QUIET_SECONDS", "30"))
WAIT_SECONDS_MAX = 300.0


def config(bigger: int | None = None) -> bytes:
    """All applications alike, but one that may have a replica more."""
    applications = [
        {
            "name": f"app{number}",
            "route_prefix": f"/app{number}",
            "import_path": "mobula.apps:noop",
            "deployments": [
                {
                    "name": "Noop",
                    "num_replicas": REPLICAS + (number == bigger),
                    "ray_actor_options": {"num_cpus": 1},
                }
            ],
        }
        for number in range(APPLICATIONS)
    ]
    return json.dumps({"applications": applications}).encode()


class Fleet:
    """The workers and routers."""

    def __init__(self, binary: str, head: str, log: BinaryIO) -> None:
        # Room for what is replaced, and for one more.
        cpus = str(APPLICATIONS * REPLICAS // WORKERS + 4)
        self.process = subprocess.Popen(
            [binary, head, str(WORKERS), cpus, str(ROUTERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert self._read() == "joined"

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self, question: str) -> list[int]:
        """The numbers of its answer."""
        assert self.process.stdin
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return [int(word) for word in self._read().split()]


def wait(reached: object, what: str) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not reached():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {WAIT_SECONDS_MAX} s in vain for: {what}")
        time.sleep(0.05)


def metric(url: str, name: str) -> float:
    """One value of a Prometheus page."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def memory_mib(pid: int, field: str) -> float:
    """A line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def changes(admin: str, fleet: Fleet) -> list[float]:
    """Seconds from the answer to a change until the last router serves from a newer table."""
    seconds = []
    for number in range(CHANGES):
        wait(lambda: len(set(fleet.ask("tables")[:2])) == 1, "one table everywhere")
        before = fleet.ask("tables")[1]
        status, body = ask(f"{admin}/api/serve/applications/", "PUT", config(number))
        sent = time.time()
        assert status == 200, body
        wait(lambda: fleet.ask("tables")[0] > before, "a newer table")
        seconds.append(max(fleet.ask("tables")[2] / 1000 - sent, 0.0))
        time.sleep(1.0)
    return seconds


def main(mobula: str, etcd: str, fleet_binary: str) -> None:
    """Runs the whole."""
    folder = Path(tempfile.mkdtemp(prefix="mobula-scale-"))
    client, peer, admin_port, cluster_port = (free_port() for _ in range(4))
    store = f"http://127.0.0.1:{client}"
    admin = f"http://127.0.0.1:{admin_port}"
    cluster = f"127.0.0.1:{cluster_port}"
    processes = []

    def start(command: list[str], log: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=(folder / log).open("wb"), stderr=subprocess.STDOUT)
        processes.append(process)
        return process

    peer_url = f"http://127.0.0.1:{peer}"
    start(
        [etcd, "--data-dir", str(folder / "etcd"), "--listen-client-urls", store]
        + ["--advertise-client-urls", store, "--listen-peer-urls", peer_url]
        + ["--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"default={peer_url}"],
        "etcd.log",
    )
    head = start(
        [mobula, "head", "--etcd", store, "--cluster", "scale"]
        + ["--admin-addr", f"127.0.0.1:{admin_port}", "--cluster-addr", cluster],
        "head.log",
    )
    try:
        wait(lambda: ask(f"{admin}/readyz")[0] == 200, "the head")
        fleet = Fleet(fleet_binary, cluster, (folder / "fleet.log").open("wb"))
        begun = time.monotonic()
        status, body = ask(f"{admin}/api/serve/applications/", "PUT", config())
        assert status == 200, body
        accepted = time.monotonic() - begun
        goal = APPLICATIONS * REPLICAS
        wait(lambda: fleet.ask("running")[0] >= goal, f"{goal} replicas")
        all_run = time.monotonic() - begun
        wait(lambda: b'"DEPLOYING"' not in ask(f"{admin}/api/serve/applications/")[1], "all RUNNING")
        running = time.monotonic() - begun
        reached = changes(admin, fleet)
        passes = [
            (metric(f"{admin}/metrics", "ray_serve_controller_control_loop_duration_s"), time.sleep(0.2))[0]
            for _ in range(50)
        ]
        puts = metric(f"{store}/metrics", "etcd_mvcc_put_total")
        ticks = sum(os_times(head.pid))
        time.sleep(QUIET_SECONDS)
        puts = metric(f"{store}/metrics", "etcd_mvcc_put_total") - puts
        busy = (sum(os_times(head.pid)) - ticks) / QUIET_SECONDS
        print(f"{APPLICATIONS} deployments, {goal} replicas, {WORKERS} workers, {ROUTERS} routers")
        print(f"config accepted after            {accepted:8.2f} s")
        print(f"all replicas run after           {all_run:8.2f} s")
        print(f"all applications RUNNING after   {running:8.2f} s")
        print(f"a pass of the head, median       {statistics.median(passes) * 1000:8.1f} ms (max {max(passes) * 1000:.1f})")
        print(f"a change at all routers, median  {statistics.median(reached) * 1000:8.0f} ms (max {max(reached) * 1000:.0f})")
        print(f"memory of the head, now          {memory_mib(head.pid, 'VmRSS'):8.0f} MiB (most {memory_mib(head.pid, 'VmHWM'):.0f})")
        print(f"writes into etcd while quiet     {puts:8.0f} in {QUIET_SECONDS} s")
        print(f"CPU of the head while quiet      {busy * 100:8.0f} % of a core")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def os_times(pid: int) -> tuple[float, float]:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    hertz = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / hertz, int(fields[12]) / hertz


if __name__ == "__main__":
    main(*sys.argv[1:4])

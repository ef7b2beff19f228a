"""Half of what a router can do, for a while, with replicas that come and go.

    soak.py MOBULA YARDSTICK

One head, one router and three workers as processes of their own. As fast as CONNECTIONS can, for a
few seconds, says what the router can do on this machine; half of that is then sent at a constant
rate for SECONDS. Meanwhile a deployment is scaled up and down and versions are replaced, all by the
REST API, and now and then a worker is killed. Afterwards:

- what the clients counted, by request and status, must be what the router counted;
- every answer that is no 2xx must be one that the router gives a reason for, and the only reason
  that is accepted is a replica that was killed with a POST in it;
- the memory of head, router and the worker that is never killed must be flat.

Standard library only. Not here: faults of the network, of etcd, of several heads (tests/chaos).
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

from takeover import ask, free_port

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
CAPACITY_SECONDS = 5
SHARE = float(os.environ.get("SHARE", "0.5"))
CONNECTIONS = int(os.environ.get("CONNECTIONS", "128"))
CHURN_PAUSE_SECONDS = 4.0
WORKERS = 3
WAIT_SECONDS_MAX = 60.0
POLL_SECONDS = 0.2
# The last quarter against the first: what allocators and a busy machine make of a flat line.
GROWTH_SHARE_MAX = 0.10
GROWTH_KIB_MAX = 4096

# The router's reason for each status of its own making.
REASONS = {400: "invalid_request", 404: "not_found", 408: "timed_out", 413: "body_too_large"}
REASONS |= {500: "internal", 502: "replica_died"}
UNAVAILABLE = ("backpressure", "unavailable")  # both are 503

# Method, path and outcome of a request.
Key = tuple[str, str, str]


class Cluster:
    """The processes, and what is deployed on them."""

    def __init__(self, mobula: str, folder: Path) -> None:
        self.mobula, self.folder = mobula, folder
        self.admin, self.router_admin = free_port(), free_port()
        self.http, self.join = free_port(), f"127.0.0.1:{free_port()}"
        self.replicas, self.versions = 3, Counter[str]()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.spawn(
            "head", "--state-dir", str(folder / "state"),
            "--admin-addr", f"127.0.0.1:{self.admin}", "--cluster-addr", self.join,
        )  # fmt: skip
        self.spawn(
            "router", "--join", self.join, "--http-addr", f"127.0.0.1:{self.http}",
            "--grpc-addr", f"127.0.0.1:{free_port()}",
            "--admin-addr", f"127.0.0.1:{self.router_admin}",
        )  # fmt: skip
        for n in range(WORKERS):
            self.start_worker(n)
        self.wait(lambda: ask(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200, "the head")
        self.deploy()
        self.wait(lambda: ask(f"{self.url}/healthz")[0] == 200, "the router")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def spawn(self, role: str, *options: str, name: str | None = None) -> None:
        log = (self.folder / f"{name or role}.log").open("ab")
        command = [self.mobula, role, *options, "--log", "info"]
        self.processes[name or role] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_worker(self, n: int) -> None:
        self.spawn("worker", "--join", self.join, "--cpus", "4", name=f"worker-{n}")

    def document(self) -> dict[str, object]:
        def application(name: str, kind: str, replicas: int) -> dict[str, object]:
            deployment = {
                "name": kind,
                "num_replicas": replicas,
                "max_ongoing_requests": 1000,
                "ray_actor_options": {"num_cpus": 0.1},
            }
            if name == "sleep":
                deployment["user_config"] = {"seconds": 0.02}
            return {
                "name": name,
                "route_prefix": f"/{name}",
                "import_path": f"mobula.apps:{name}",
                "runtime_env": {"env_vars": {"VERSION": str(self.versions[name])}},
                "deployments": [deployment],
            }

        return {
            "http_options": {"host": "127.0.0.1"},
            "applications": [
                application("noop", "Noop", self.replicas),
                application("echo", "Echo", 3),
                application("sleep", "Sleep", 3),
            ],
        }

    def deploy(self) -> None:
        """Asks for what is wanted now, and waits until it runs."""
        url = f"http://127.0.0.1:{self.admin}/api/serve/applications/"
        status, said = ask(url, "PUT", json.dumps(self.document()).encode())
        if status != 200:
            raise SystemExit(f"the config was not taken: {status} {said.decode()}")
        self.settle()

    def settle(self) -> None:
        self.wait(lambda: self.is_settled(), "what was deployed")

    def is_settled(self) -> bool:
        status, body = ask(f"http://127.0.0.1:{self.admin}/api/serve/applications/")
        if status != 200:
            return False
        shown = json.loads(body)["applications"]
        pids = {process.pid for process in self.processes.values() if process.poll() is None}
        for wanted in self.document()["applications"]:
            found = shown.get(wanted["name"], {})
            (deployment,) = found.get("deployments", {}).values() or ({"replicas": []},)
            replicas = deployment["replicas"]
            running = [r for r in replicas if r["state"] == "RUNNING" and r["pid"] in pids]
            count = wanted["deployments"][0]["num_replicas"]
            environ = found.get("deployed_app_config", {}).get("runtime_env")
            if (
                found.get("status") != "RUNNING"
                or deployment["status"] != "HEALTHY"
                or environ != wanted["runtime_env"]
                or len(running) != count
                or len(replicas) != count
            ):
                return False
        return True

    def wait(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_SECONDS_MAX
        while not reached():
            for name, process in self.processes.items():
                if process.poll() is not None and process.returncode != -signal.SIGKILL:
                    raise SystemExit(f"{name} ended by itself, see {self.folder}")
            if time.monotonic() > end:
                raise SystemExit(f"waited in vain for {what}, see {self.folder}")
            time.sleep(POLL_SECONDS)

    # ---- what is done to it ----

    def scale(self, replicas: int) -> str:
        self.replicas = replicas
        self.deploy()
        return "scaled"

    def replace(self, application: str) -> str:
        self.versions[application] += 1
        self.deploy()
        return "version replaced"

    def kill(self, n: int) -> str:
        """Settles without it, and then with it."""
        process = self.processes[f"worker-{n}"]
        process.kill()
        process.wait()
        self.settle()
        self.start_worker(n)
        return "worker killed"

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


class Memory(threading.Thread):
    """Looks at the resident set of processes, and at their open files, every second."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster, self.ended = cluster, threading.Event()
        # worker-0 is the one that is never killed.
        self.seen: dict[str, list[tuple[float, int, int]]] = {
            name: [] for name in ("head", "router", "worker-0")
        }

    def run(self) -> None:
        begun = time.monotonic()
        while not self.ended.wait(1.0):
            for name, seen in self.seen.items():
                pid = self.cluster.processes[name].pid
                seen.append((time.monotonic() - begun, rss_kib(pid), open_files(pid)))

    def rows(self) -> tuple[list[str], list[str]]:
        """The table, and what is not flat in it."""
        rows, grown = [], []
        for name, seen in self.seen.items():
            quarter = max(len(seen) // 4, 1)
            first = statistics.median(kib for _, kib, _ in seen[:quarter])
            last = statistics.median(kib for _, kib, _ in seen[-quarter:])
            slope = statistics.linear_regression(
                [at / 60 for at, _, _ in seen], [kib for _, kib, _ in seen]
            ).slope
            most = max(kib for _, kib, _ in seen)
            files = [
                statistics.median(files for _, _, files in part)
                for part in (seen[:quarter], seen[-quarter:])
            ]
            rows.append(
                f"{name:<10}{first / 1024:12.1f}{last / 1024:12.1f}{most / 1024:12.1f}"
                f"{slope:14.0f}   {files[0]:.0f} to {files[1]:.0f}"
            )
            if last - first > GROWTH_KIB_MAX + GROWTH_SHARE_MAX * first:
                grown.append(f"the memory of {name} is not flat")
        return rows, grown


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} is gone")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def load(yardstick: str, url: str, rate: int, seconds: int) -> subprocess.Popen[str]:
    command = [yardstick, "mixed", url, str(rate), str(seconds), str(CONNECTIONS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcomes(text: str) -> Counter[Key]:
    """What the clients counted."""
    found: Counter[Key] = Counter()
    for method, path, outcome, count in re.findall(r"^([A-Z]+) (\S+) (\S+) (\d+)$", text, re.M):
        found[method, path, outcome] += int(count)
    return found


def counted(port: int) -> tuple[Counter[Key], Counter[str]]:
    """What the router counted: by request and status, and by its reason for having no answer."""
    status, body = ask(f"http://127.0.0.1:{port}/metrics")
    assert status == 200, "the router shows no metrics"
    requests: Counter[Key] = Counter()
    reasons: Counter[str] = Counter()
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", body.decode(), re.M):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if name == "ray_serve_num_http_requests_total":
            key = (label["method"], f"/{label['application']}", label["status_code"])
            requests[key] += int(float(value))
        elif name == "mobula_router_problems_total":
            reasons[label["reason"]] += int(float(value))
    return requests, reasons


def churn(cluster: Cluster, until: float) -> Iterator[tuple[str, float, float]]:
    """One thing after the other: what was done, and from when to when."""
    steps: list[Callable[[], str]] = [
        lambda: cluster.scale(6),
        lambda: cluster.replace("sleep"),
        lambda: cluster.scale(2),
        lambda: cluster.kill(1),
        lambda: cluster.replace("echo"),
        lambda: cluster.scale(4),
        lambda: cluster.replace("noop"),
        lambda: cluster.kill(2),
    ]
    for step in cycle(steps):
        if time.monotonic() + CHURN_PAUSE_SECONDS > until:
            return
        time.sleep(CHURN_PAUSE_SECONDS)
        begun = time.time()
        done = step()
        yield done, begun, time.time()


def excused(line: str, kills: list[tuple[float, float]]) -> bool:
    """Whether a failed request is one that no serving system can prevent."""
    _, at, method, _, outcome, *_ = line.split()
    near = any(begun <= float(at) <= ended for begun, ended in kills)
    return method == "POST" and outcome == "502" and near


def judge(
    client: Counter[Key], router: Counter[Key], reasons: Counter[str], told: list[str]
) -> tuple[list[str], list[str]]:
    """The table of what was answered, and what is wrong with it; `told` has no excuse."""
    rows, wrong = [], [f"no excuse: {line}" for line in told]
    for key in sorted(client.keys() | router.keys()):
        rows.append(f"{' '.join(key):<28}{client[key]:>12}{router[key]:>12}")
        if client[key] != router[key]:
            wrong.append(
                f"{' '.join(key)}: clients counted {client[key]}, the router {router[key]}"
            )
    by_status: Counter[str] = Counter()
    for (_, _, outcome), count in client.items():
        by_status[outcome] += count
    own = {str(status): reasons[reason] for status, reason in REASONS.items()}
    own["503"] = sum(reasons[reason] for reason in UNAVAILABLE)
    for status, count in by_status.items():
        if not status.startswith("2") and own.get(status, 0) != count:
            wrong.append(f"{count} answers {status}, the router's reasons are {dict(reasons)}")
    return rows, wrong


def measure(cluster: Cluster, yardstick: str) -> list[str]:
    """Runs it, prints the tables, and returns what is wrong."""
    closed = load(yardstick, cluster.url, 0, CAPACITY_SECONDS)
    capacity = sum(outcomes(closed.communicate()[0]).values()) / CAPACITY_SECONDS
    rate = int(capacity * SHARE)
    print(f"capacity  {capacity:.0f} requests/s over {CONNECTIONS} connections, closed loop")
    print(f"load      {rate} requests/s for {SECONDS} s, open loop", flush=True)
    requests_before, reasons_before = counted(cluster.router_admin)
    memory = Memory(cluster)
    memory.start()
    until = time.monotonic() + SECONDS
    running = load(yardstick, cluster.url, rate, SECONDS)
    text: list[str] = []
    reading = threading.Thread(target=lambda: text.append(running.communicate()[0]))
    reading.start()
    done: Counter[str] = Counter()
    kills = []
    for what, begun, ended in churn(cluster, until):
        done[what] += 1
        if what == "worker killed":
            kills.append((begun, ended))
    reading.join()
    memory.ended.set()
    memory.join()
    requests, reasons = counted(cluster.router_admin)
    requests.subtract(requests_before)
    reasons.subtract(reasons_before)
    requests, reasons = +requests, +reasons
    print(f"churn     {', '.join(f'{what} {count} times' for what, count in done.items())}")
    print(f"latency   {text[0].splitlines()[-1]}\n")
    told = [line for line in text[0].splitlines() if line.startswith("failed ")]
    rows, wrong = judge(
        outcomes(text[0]), requests, reasons, [one for one in told if not excused(one, kills)]
    )
    print(f"{'request and status':<28}{'clients':>12}{'router':>12}")
    print("\n".join(rows))
    given = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "none"
    print(f"the router's reasons for having no answer: {given}")
    excuses = sum(excused(one, kills) for one in told)
    print(f"excused, a POST in a replica that was killed: {excuses}\n")
    rows, grown = memory.rows()
    print(
        f"{'RSS, MiB':<10}{'first 1/4':>12}{'last 1/4':>12}{'most':>12}{'KiB/min':>14}   open files"
    )
    print("\n".join(rows))
    return wrong + grown


def main(mobula: str, yardstick: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mobula-soak-"))
    cluster = Cluster(mobula, folder)
    try:
        wrong = measure(cluster, yardstick)
    finally:
        cluster.end()
    print("\n" + ("\n".join(["WRONG", *wrong[:50]]) if wrong else "unexplained: 0, memory flat"))
    if wrong:
        print(f"logs: {folder}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:3])

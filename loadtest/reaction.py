"""How fast real processes follow the load: one `mobula run`, clients over HTTP.

    reaction.py MOBULA

Three tables. A step from one client to ten times as many: seconds from the first of the new
requests until the count is what they need, and until as many replicas answer. From zero: seconds
until the first request is answered. Down and to zero: requests sent all the while, and what was
lost of them. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from takeover import ask, free_port

ROUNDS = int(os.environ.get("ROUNDS", "5"))
EMBEDDER = os.environ.get("EMBEDDER", "1") == "1"
WAIT_SECONDS_MAX = 120.0
POLL_SECONDS = 0.01

# A step to ten times the load; so many are in progress then.
RATE = 50.0
SERVICE_SECONDS = 0.2
TARGET_ONGOING = 1
NEEDED = round(RATE * SERVICE_SECONDS / TARGET_ONGOING)
CLIENTS = 10  # for going down
ASKING = 200  # threads; more than ever wait for an answer
AT_ONCE = {"min_replicas": 1, "max_replicas": 16, "target_ongoing_requests": TARGET_ONGOING}
QUICK_DOWN = {"downscale_delay_s": 1, "downscale_to_zero_delay_s": 1}
SETTINGS: dict[str, tuple[dict[str, float], str]] = {
    "default, delay 0 s": ({"look_back_period_s": 0.5, "upscale_delay_s": 0}, "default"),
    "default, delay 2 s": ({"look_back_period_s": 0.5, "upscale_delay_s": 2}, "default"),
    "reactive, delay 0 s": ({"look_back_period_s": 5, "upscale_delay_s": 0}, "reactive"),
}


class Server:
    """One `mobula run`."""

    def __init__(self, mobula: str, folder: Path) -> None:
        self.http, self.grpc, self.admin_port = free_port(), free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.process = subprocess.Popen(
            [mobula, "run", "--state-dir", str(folder / "state"), "--num-cpus", "64"]
            + ["--workers", "2", "--admin-addr", f"127.0.0.1:{self.admin_port}"],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "server.log").open("w"),
        )
        wait(lambda: ask(f"{self.admin}/readyz")[0] == 200, "the server")

    def deploy(self, kind: str, name: str, scaling: dict[str, Any], policy: str, **more: Any) -> None:
        entry = {
            "name": name,
            "ray_actor_options": {"num_cpus": 0.1},
            "max_ongoing_requests": 5,
            "autoscaling_config": scaling,
            "mobula": {"autoscaling": {"policy": policy}},
            **more,
        }
        application = {
            "name": "app",
            "route_prefix": "/",
            "import_path": f"mobula.apps:{kind}",
            "deployments": [entry],
        }
        config = {
            "http_options": {"host": "127.0.0.1", "port": self.http},
            "grpc_options": {"port": self.grpc},
            "applications": [application],
        }
        body = json.dumps(config).encode()
        status, answer = ask(f"{self.admin}/api/serve/applications/", "PUT", body)
        assert status == 200, answer
        wait(lambda: self.application().get("status") == "RUNNING", "the application")

    def application(self) -> dict[str, Any]:
        status, body = ask(f"{self.admin}/api/serve/applications/")
        found = json.loads(body)["applications"].get("app", {}) if status == 200 else {}
        return dict(found)

    def counts(self) -> tuple[int, int]:
        """What shall be, and what answers."""
        (deployment,) = self.application()["deployments"].values()
        running = sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        return int(deployment["target_num_replicas"]), running


class Arrivals:
    """Requests at a rate, whether or not the ones before were answered."""

    def __init__(self, port: int, rate: float) -> None:
        self.rate, self.sent, self.lost = rate, 0, 0
        self.due: queue.Queue[bool] = queue.Queue()
        self.lock, self.stop = threading.Lock(), threading.Event()
        asking = [threading.Thread(target=self._ask, args=(port,)) for _ in range(ASKING)]
        self.threads = [threading.Thread(target=self._clock), *asking]
        for thread in self.threads:
            thread.start()

    def _clock(self) -> None:
        at = time.monotonic()
        while not self.stop.is_set():
            at += 1 / self.rate
            time.sleep(max(at - time.monotonic(), 0))
            self.due.put(True)
        for _ in range(ASKING):
            self.due.put(False)

    def _ask(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while self.due.get():
            try:
                failed = get(connection) != 200
            except OSError:
                failed = True
                connection.close()
            with self.lock:
                self.sent, self.lost = self.sent + 1, self.lost + failed

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Clients:
    """Threads that ask again as soon as they are answered. Every outcome is counted."""

    def __init__(self, port: int, count: int, send: Callable[[http.client.HTTPConnection], int]) -> None:
        self.port, self.send = port, send
        self.sent, self.lost = 0, 0
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.stop.is_set():
            try:
                failed = self.send(connection) != 200
            except OSError:
                failed = True
                connection.close()
            with self.lock:
                self.sent += 1
                self.lost += failed

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def get(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.status


def embed(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", "/embed", b'{"inputs": "x"}', {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


@contextmanager
def load(port: int, count: int) -> Iterator[Clients]:
    clients = Clients(port, count, get)
    try:
        yield clients
    finally:
        clients.end()


def wait(reached: Callable[[], bool], what: str) -> float:
    """When a condition began to hold."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {WAIT_SECONDS_MAX:.0f} s in vain for: {what}")
        time.sleep(POLL_SECONDS)
    return time.monotonic()


def row(name: str, values: list[float], rest: str = "") -> None:
    median = statistics.median(values)
    print(f"{name:<34}{median:8.2f}{min(values):8.2f}{max(values):8.2f}   {rest}", flush=True)


def step(server: Server) -> None:
    """A tenth of the rate, then all of it."""
    print("A step to ten times the load: seconds (median, least, most)")
    sleep = {"user_config": {"seconds": SERVICE_SECONDS}}
    sent = lost = 0
    for name, (scaling, policy) in SETTINGS.items():
        server.deploy("sleep", "Sleep", {**AT_ONCE, **QUICK_DOWN, **scaling}, policy, **sleep)
        decided, answering, most = [], [], 0
        for _ in range(ROUNDS):
            wait(lambda: server.counts() == (1, 1), "one replica")
            arrivals = Arrivals(server.http, RATE / 10)
            try:
                time.sleep(3)
                begun = time.monotonic()
                arrivals.rate = RATE
                decided.append(wait(lambda: server.counts()[0] >= NEEDED, "the count") - begun)
                answering.append(wait(lambda: server.counts()[1] >= NEEDED, "replicas") - begun)
                for _ in range(30):
                    most = max(most, server.counts()[0])
                    time.sleep(0.1)
            finally:
                arrivals.end()
            sent, lost = sent + arrivals.sent, lost + arrivals.lost
        allowed = scaling["upscale_delay_s"] + 1
        row(f"{name}: count", decided, f"allowed {allowed:.0f} s; most {most}, needed {NEEDED}")
        row(f"{name}: replicas answer", answering)
    print(f"{sent} requests sent, {lost} lost")


def first_request(server: Server) -> None:
    """Nobody is there, and somebody comes."""
    print("\nThe first request from zero is answered: seconds (median, least, most)")
    scaling = {"min_replicas": 0, "max_replicas": 2, "initial_replicas": 0, **QUICK_DOWN}
    scaling["look_back_period_s"] = 0.5
    kinds = [("noop", "Noop", get)] + ([("embedder", "Embedder", embed)] if EMBEDDER else [])
    for kind, deployment, send in kinds:
        server.deploy(kind, deployment, scaling, "default")
        waited = []
        for _ in range(ROUNDS):
            wait(lambda: server.counts() == (0, 0), "no replica")
            connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=60)
            begun = time.monotonic()
            status = send(connection)
            waited.append(time.monotonic() - begun)
            assert status == 200, status
            connection.close()
        row(kind, waited, "all answered")


def down(server: Server) -> None:
    """Requests come while replicas go."""
    print("\nRequests while replicas go and come, and what was lost of them")
    quick = {**AT_ONCE, **QUICK_DOWN, "look_back_period_s": 0.5, "upscale_delay_s": 0}
    sleep = {"user_config": {"seconds": SERVICE_SECONDS / 10}}
    server.deploy("sleep", "Sleep", {**quick, "min_replicas": 0}, "default", **sleep)
    sent = lost = 0
    for _ in range(ROUNDS):
        with load(server.http, 1) as one:
            with load(server.http, CLIENTS - 1) as many:
                wait(lambda: server.counts()[1] >= CLIENTS // 2, "replicas")
            wait(lambda: server.counts() == (1, 1), "one replica")
        wait(lambda: server.counts() == (0, 0), "no replica")
        sent, lost = sent + one.sent + many.sent, lost + one.lost + many.lost
    print(f"up, down and to zero, {ROUNDS} times:   {sent} sent, {lost} lost")
    # A request that comes in the moment in which the last replica goes.
    sent = lost = 0
    end = time.monotonic() + 4 * ROUNDS
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=60)
    while time.monotonic() < end:
        sent, lost = sent + 1, lost + (get(connection) != 200)
        time.sleep(2.4 + 0.2 * (sent % 5) / 5)
    print(f"one request about each time the last replica goes:   {sent} sent, {lost} lost")


def main(mobula: str) -> None:
    """Runs the whole."""
    folder = Path(tempfile.mkdtemp(prefix="mobula-reaction-"))
    server = Server(mobula, folder)
    try:
        step(server)
        first_request(server)
        down(server)
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main(sys.argv[1])

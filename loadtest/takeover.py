"""How long a cluster is without a leading head: after kill -9, and after SIGTERM.

One etcd, three heads, one router and one worker with the no-op application. Each round ends the
head that leads and measures until one of the others answers the status document as leader. A
client asks the router all the while; each of its requests must be answered. Standard library only.

Not here: the lease itself (crates/store/tests), faults of etcd.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROUNDS = int(os.environ.get("ROUNDS", "20"))
LEASE_SECONDS = int(os.environ.get("LEASE_SECONDS", "2"))
HEADS = 3
WAIT_SECONDS_MAX = 60.0
POLL_SECONDS = 0.005

CONFIG = {
    "http_options": {"host": "127.0.0.1"},
    "applications": [{"name": "noop", "route_prefix": "/", "import_path": "mobula.apps:noop"}],
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Head:
    """One of the heads; started again on the same addresses."""

    def __init__(self, mobula: str, etcd: str, folder: Path, number: int) -> None:
        self.admin, self.cluster = free_port(), free_port()
        self.log = folder / f"head-{number}.log"
        self.command = [
            mobula, "head", "--etcd", etcd, "--cluster", "takeover",
            "--lease-seconds", str(LEASE_SECONDS), "--log", "info",
            "--admin-addr", f"127.0.0.1:{self.admin}",
            "--cluster-addr", f"127.0.0.1:{self.cluster}",
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log.open("w"))

    def leads(self) -> bool:
        """Its own word: the log of this start says that it leads."""
        return "this head leads now" in self.log.read_text(errors="replace")

    def state(self) -> str:
        status, body = ask(f"http://127.0.0.1:{self.admin}/api/serve/applications/")
        if status != 200:
            return ""
        return str(json.loads(body)["applications"].get("noop", {}).get("status", ""))


class Client(threading.Thread):
    """Asks the router, one request after the other."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.url, self.answered, self.failed, self.stop = f"http://127.0.0.1:{port}/", 0, 0, False

    def run(self) -> None:
        while not self.stop:
            if ask(self.url)[0] == 200:
                self.answered += 1
            else:
                self.failed += 1


def wait(what: str, ready) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(POLL_SECONDS)


def leader(heads: list[Head]) -> Head | None:
    return next((head for head in heads if head.leads() and head.state() == "RUNNING"), None)


def measure(heads: list[Head], how: signal.Signals) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        wait("a leader", lambda: leader(heads))
        ended = leader(heads)
        assert ended is not None
        others = [head for head in heads if head is not ended]
        start = time.monotonic()
        ended.process.send_signal(how)
        wait("the next leader", lambda: leader(others))
        times.append(time.monotonic() - start)
        ended.process.wait()
        ended.start()
        wait("the head that is back", lambda: ended.state() == "RUNNING")
    return times


def row(name: str, times: list[float]) -> None:
    print(f"{name:<10} median {statistics.median(times):.3f} s, max {max(times):.3f} s, rounds {len(times)}")
    print(f"           raw {' '.join(f'{one:.3f}' for one in times)}")


def main(mobula: str, etcd_binary: str) -> None:
    children: list[subprocess.Popen[bytes]] = []
    heads: list[Head] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        children.append(subprocess.Popen([
            etcd_binary, "--data-dir", str(folder / "etcd"),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}",
        ], **quiet))  # fmt: skip
        try:
            wait("etcd", lambda: ask(f"{url}/health")[0] == 200)
            heads = [Head(mobula, url, folder, number) for number in range(HEADS)]
            join = ",".join(f"127.0.0.1:{head.cluster}" for head in heads)
            http = free_port()
            children.append(subprocess.Popen([mobula, "worker", "--join", join, "--cpus", "2"], **quiet))
            children.append(subprocess.Popen([
                mobula, "router", "--join", join, "--http-addr", f"127.0.0.1:{http}",
                "--grpc-addr", f"127.0.0.1:{free_port()}",
            ], **quiet))  # fmt: skip
            put = f"http://127.0.0.1:{heads[0].admin}/api/serve/applications/"
            wait("the config", lambda: ask(put, "PUT", json.dumps(CONFIG).encode())[0] == 200)
            wait("the application", lambda: ask(f"http://127.0.0.1:{http}/")[0] == 200)
            client = Client(http)
            client.start()
            print(f"lease {LEASE_SECONDS} s, {HEADS} heads")
            row("SIGTERM", measure(heads, signal.SIGTERM))
            row("kill -9", measure(heads, signal.SIGKILL))
            client.stop = True
            client.join()
            print(f"requests through the router meanwhile: {client.answered} answered, {client.failed} failed")
        finally:
            for child in [*(head.process for head in heads), *children]:
                child.kill()
                child.wait()


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""The processes of the cluster: three etcd members, heads, routers and workers on loopback.

Each has addresses of its own and is started on them again after it ended. All carry one mark in
their environment, so that a process that nobody knows of is found. Faults are in faults.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from relays import Relays
from support import processes
from support.config import free_ports

ETCD_MEMBERS = 3
HEADS = 3
ROUTERS = 2
WORKERS = 3
WORKER_CPUS = 2
LEASE_SECONDS = 2
# A graceful stop waits for requests under way; none takes longer than this.
STOP_SECONDS_MAX = 40.0


class Role:
    """One process that can be ended and started again."""

    def __init__(self, kind: str, name: str, command: list[str], folder: Path, mark: str) -> None:
        self.kind, self.name, self.command = kind, name, command
        self.folder, self.mark = folder, mark
        self.starts = 0
        # Whether it should be running: true between its start and an end that was wanted.
        self.expected = False
        # Stopped or cut off by a fault: alive, and not to be asked.
        self.silenced = False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; each start writes a log of its own."""
        self.starts += 1
        self.expected = True
        environ = {**os.environ, processes.MARK: self.mark, "MOBULA_LOG": "info"}
        with self.log_path().open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=environ
            )

    def end(self, how: signal.Signals) -> int:
        """Sends the signal and waits for the end; its exit code, negative for a signal."""
        self.expected = False
        if self.process is None:
            return 0
        self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS_MAX)

    def pause(self) -> None:
        """Stops it where it is; all its connections stay open."""
        self.silenced = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.silenced = False

    def signal(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)

    def answers(self) -> bool:
        """Whether it can be asked, and counts."""
        return self.is_running() and not self.silenced

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def log_path(self) -> Path:
        return self.folder / f"{self.name}.{self.starts}.log"

    def log(self) -> str:
        try:
            return self.log_path().read_text(errors="replace")
        except FileNotFoundError:
            return ""


class Etcd(Role):
    url: str


class Head(Role):
    admin: str
    cluster: str

    def leads(self) -> bool:
        """Its own word: the log says whether it took the lead or lost it last."""
        log = self.log()
        return log.rfind("this head leads now") > log.rfind("the lead was lost")


class Router(Role):
    url: str


class Worker(Role):
    pass


class House:
    """All processes of one run."""

    def __init__(self, mobula: str, etcd: str, folder: Path) -> None:
        self.mobula, self.folder = mobula, folder
        self.mark = uuid.uuid4().hex
        relayed = HEADS * ETCD_MEMBERS + WORKERS * HEADS
        ports = iter(free_ports(2 * (ETCD_MEMBERS + HEADS + ROUTERS) + relayed))
        self.etcd = self._etcd_members(etcd, [(next(ports), next(ports)) for _ in range(3)])
        self.relays = Relays()
        self.heads = [self._head(n, next(ports), next(ports), ports) for n in range(HEADS)]
        join = ",".join(head.cluster for head in self.heads)
        self.routers = [self._router(n, next(ports), next(ports), join) for n in range(ROUTERS)]
        self.workers = [self._worker(n, ports) for n in range(WORKERS)]

    def roles(self) -> list[Role]:
        return [*self.etcd, *self.heads, *self.routers, *self.workers]

    def leader(self) -> Head | None:
        return next((head for head in self.heads if head.answers() and head.leads()), None)

    def orphans(self) -> list[int]:
        """Processes of this run that are none of its roles."""
        known = {role.pid() for role in self.roles() if role.is_running()}
        return [pid for pid in processes.marked(self.mark) if pid not in known]

    def end(self) -> None:
        """Ends whatever still runs."""
        for role in self.roles():
            if role.is_running():
                role.end(signal.SIGKILL)
        for pid in processes.marked(self.mark):
            processes.kill_9(pid)
        self.relays.end()

    def _etcd_members(self, binary: str, ports: list[tuple[int, int]]) -> list[Etcd]:
        peers = [f"http://127.0.0.1:{peer}" for _, peer in ports]
        cluster = ",".join(f"etcd-{n}={peer}" for n, peer in enumerate(peers))
        members = []
        for n, (client, _) in enumerate(ports):
            url = f"http://127.0.0.1:{client}"
            command = [
                binary, "--name", f"etcd-{n}", "--data-dir", str(self.folder / f"etcd-{n}"),
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n],
                "--initial-cluster", cluster, "--initial-cluster-token", self.mark,
            ]  # fmt: skip
            member = Etcd("etcd", f"etcd-{n}", command, self.folder, self.mark)
            member.url = url
            members.append(member)
        return members

    def _through(self, source: str, targets: list[str], ports: Iterator[int]) -> list[str]:
        """Addresses of those addresses for one role, by relays of its own."""
        addresses = []
        for target in targets:
            port = next(ports)
            self.relays.add(source, port, target, int(target.rsplit(":", 1)[1]))
            addresses.append(f"127.0.0.1:{port}")
        return addresses

    def _head(self, n: int, admin: int, cluster: int, ports: Iterator[int]) -> Head:
        members = self._through(f"head-{n}", [member.url for member in self.etcd], ports)
        urls = ",".join(f"http://{member}" for member in members)
        command = [
            self.mobula, "head", "--etcd", urls, "--cluster", "chaos",
            "--lease-seconds", str(LEASE_SECONDS),
            "--admin-addr", f"127.0.0.1:{admin}", "--cluster-addr", f"127.0.0.1:{cluster}",
        ]  # fmt: skip
        head = Head("head", f"head-{n}", command, self.folder, self.mark)
        head.admin, head.cluster = f"http://127.0.0.1:{admin}", f"127.0.0.1:{cluster}"
        return head

    def _router(self, n: int, http: int, grpc: int, join: str) -> Router:
        command = [
            self.mobula, "router", "--join", join,
            "--http-addr", f"127.0.0.1:{http}", "--grpc-addr", f"127.0.0.1:{grpc}",
        ]  # fmt: skip
        router = Router("router", f"router-{n}", command, self.folder, self.mark)
        router.url = f"http://127.0.0.1:{http}"
        return router

    def _worker(self, n: int, ports: Iterator[int]) -> Worker:
        heads = self._through(f"worker-{n}", [head.cluster for head in self.heads], ports)
        command = [self.mobula, "worker", "--join", ",".join(heads), "--cpus", str(WORKER_CPUS)]
        return Worker("worker", f"worker-{n}", command, self.folder, self.mark)

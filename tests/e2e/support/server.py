"""Starts, asks and ends a real `mobula run` on ports and a state directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import requests
import yaml

from . import processes
from .config import Json, document, free_ports
from .waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
APPLICATIONS = "/api/serve/applications/"
START_TIMEOUT_S = 60.0  # a cold start may have to fetch nothing, but does load models
STOP_TIMEOUT_S = 40.0  # more than graceful_shutdown_timeout_s of any test


def binary() -> str:
    """MOBULA_BIN, or the debug build of this tree."""
    return os.environ.get("MOBULA_BIN") or str(REPOSITORY / "target" / "debug" / "mobula")


class Server:
    """One `mobula run`, with its workers."""

    def __init__(
        self,
        folder: Path,
        *,
        num_cpus: float = 16,
        num_gpus: float = 0,
        workers: int | None = None,
        environ: dict[str, str] | None = None,
        more_args: list[str] | None = None,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.log_path = folder / "mobula.log"
        self.http_port, self.grpc_port, self.admin_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.grpc_target = f"127.0.0.1:{self.grpc_port}"
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.workers = workers
        self.environ = environ or {}
        self.more_args = more_args or []
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[bytes] | None = None

    # ---- life ----

    def config(self, applications: list[Json], **http_options: Any) -> Json:
        """A config on this server's ports."""
        return document(self.http_port, self.grpc_port, applications, **http_options)

    def command(self, config: Json | None) -> list[str]:
        """The command line; a config is written beside the log."""
        command = [binary(), "run"]
        if config is not None:
            path = self.folder / "serve.yaml"
            path.write_text(yaml.safe_dump(config, sort_keys=False))
            command.append(str(path))
        command += ["--admin-addr", f"127.0.0.1:{self.admin_port}"]
        command += ["--state-dir", str(self.state_dir), "--num-cpus", str(self.num_cpus)]
        if self.num_gpus:
            command += ["--num-gpus", str(self.num_gpus)]
        if self.workers is not None:
            command += ["--workers", str(self.workers)]
        return command + self.more_args

    def spawn(self, config: Json | None = None) -> subprocess.Popen[bytes]:
        """Starts the process and waits for nothing."""
        environ = {**os.environ, **self.environ, processes.MARK: self.mark}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(config), stdout=log, stderr=subprocess.STDOUT, env=environ
            )
        return self.process

    def start(self, config: Json | None = None) -> Server:
        """Starts and waits: for every application when there is a config, else for the head."""
        self.spawn(config)
        if config is None:
            self.wait_ready()
        else:
            self.wait_healthy()
        return self

    def _answers_200(self, url: str) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"mobula ended with {code}:\n{self.log_tail()}"
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def wait_ready(self) -> None:
        """The head answers."""
        wait_until(
            lambda: self._answers_200(f"{self.admin}/readyz"), "/readyz 200", START_TIMEOUT_S
        )

    def wait_healthy(self) -> None:
        """Every application is RUNNING."""
        wait_until(
            lambda: self._answers_200(f"{self.url}/healthz"), "/healthz 200", START_TIMEOUT_S
        )

    def signal(self, number: int) -> None:
        """Sends a signal to the head process only."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for the head process to end by itself; its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """Ends everything, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait_exit()
            except subprocess.TimeoutExpired:
                pass
        for pid in self.pids():
            processes.kill_9(pid)
        if self.process is not None:
            self.process.wait(10)

    def wait_log(self, text: str) -> None:
        """It has printed that."""
        wait_until(lambda: text in self.log_tail(), f"'{text}' in the log", START_TIMEOUT_S)

    def pids(self) -> list[int]:
        """Every living process of this server."""
        return processes.marked(self.mark)

    def log_tail(self, chars: int = 6000) -> str:
        """The end of what it printed."""
        try:
            return self.log_path.read_text(errors="replace")[-chars:]
        except FileNotFoundError:
            return ""

    # ---- the admin API ----

    def put(self, config: Json) -> requests.Response:
        """Sends a config as the CLI does."""
        return requests.put(f"{self.admin}{APPLICATIONS}", json=config, timeout=10)

    def deploy(self, config: Json) -> None:
        """Sends a config that must be accepted, and waits until it is in force."""
        answer = self.put(config)
        assert answer.status_code == 200, answer.text
        for entry in config["applications"]:
            self.wait_app(entry["name"], "RUNNING")

    def document(self) -> Json:
        """The GET document."""
        answer = requests.get(f"{self.admin}{APPLICATIONS}", timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_app(self, name: str, status: str, timeout_s: float = 30.0) -> Json:
        """Waits for an application's status; its part of the GET document."""

        def reached() -> Json | None:
            found = self.document()["applications"].get(name)
            return found if found and found["status"] == status else None

        return wait_until(reached, f"application {name} {status}", timeout_s)

    def replicas(self, application: str, deployment: str) -> list[Json]:
        """The RUNNING replicas of a deployment."""
        found = self.document()["applications"][application]["deployments"][deployment]
        return [replica for replica in found["replicas"] if replica["state"] == "RUNNING"]

    def metrics(self) -> str:
        """The exposition of the whole server."""
        answer = requests.get(f"{self.admin}/metrics", timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.text

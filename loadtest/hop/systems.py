"""Starts what is measured: a bare server, proxies to it, mobula, and Ray Serve."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 30.0
HERE = Path(__file__).parent


class Running:
    """A system that answers at `url`, and its process."""

    def __init__(self, command: list[str], port: int, work: Path, env: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = work / "log.txt"
        # Its own group: what it starts ends with it.
        self.process = subprocess.Popen(
            command,
            cwd=work,
            env=os.environ | env,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + START_SECONDS_MAX
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                sys.exit(f"{command[0]} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            for path, body in (("/", None), ("/echo", b"{}")):
                request = urllib.request.Request(self.url + path, data=body)
                with urllib.request.urlopen(request, timeout=2) as answer:
                    answer.read()
            return True
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fill(template: str, work: Path, **values: object) -> Path:
    text = (HERE / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    path = work / template.removesuffix(".in")
    path.write_text(text)
    return path


def bare(work: Path, _: int) -> Running:
    port = free_port()
    return Running([os.environ["YARDSTICK"], "bare", f"127.0.0.1:{port}"], port, work, {})


def nginx(work: Path, upstream: int) -> Running:
    port = free_port()
    config = fill("nginx.conf.in", work, WORK=work, BARE=upstream, PROXY=port)
    command = [os.environ["NGINX"], "-e", f"{work}/error.log", "-p", str(work), "-c", str(config)]
    return Running(command, port, work, {})


def haproxy(work: Path, upstream: int) -> Running:
    port = free_port()
    config = fill("haproxy.cfg.in", work, BARE=upstream, PROXY=port)
    return Running([os.environ["HAPROXY"], "-db", "-f", str(config)], port, work, {})


def mobula(work: Path, _: int) -> Running:
    port, admin = free_port(), free_port()
    config = fill("mobula.yaml.in", work, HTTP=port, GRPC=free_port())
    command = [os.environ["MOBULA"], "run", str(config), "--admin-addr", f"127.0.0.1:{admin}"]
    return Running([*command, "--state-dir", str(work / "state")], port, work, {})


def ray(work: Path, _: int) -> Running:
    return ray_serve(work, {})


def ray_tuned(work: Path, _: int) -> Running:
    """The settings that Ray's makers measure with."""
    return ray_serve(
        work, {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    )


def ray_serve(work: Path, env: dict[str, str]) -> Running:
    port = free_port()
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(work), "HOP_PORT": str(port)}
    return Running([sys.executable, str(HERE / "ray_app.py")], port, work, quiet | env)


SYSTEMS: dict[str, Callable[[Path, int], Running]] = {
    "bare": bare,
    "nginx": nginx,
    "haproxy": haproxy,
    "mobula": mobula,
    "ray": ray,
    "ray-tuned": ray_tuned,
}

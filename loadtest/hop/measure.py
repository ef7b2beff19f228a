"""Runs the load generators and reads what they print."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Measured:
    """Requests per second and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def wrk(url: str, connections: int, seconds: float, raw: Path, body: Path | None) -> Measured:
    """As fast as so many connections can, each with one request at a time."""
    command = [os.environ["WRK"], "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["--timeout", "30s"]
    if body is not None:
        command += ["-s", str(post(body))]
    text = run([*command, url], raw)
    if "Non-2xx" in text or re.search(r"Socket errors:.*[1-9]", text):
        sys.exit(f"{raw.name} has errors:\n{text}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    latency = {q: re.search(rf"\s{q}%\s+([\d.]+)(us|ms|s)\b", text) for q in (50, 99)}
    p50, p99 = latency[50], latency[99]
    if not (rate and p50 and p99):
        sys.exit(f"{raw.name} is not wrk's output:\n{text}")
    return Measured(
        float(rate[1]), float(p50[1]) * UNIT_MS[p50[2]], float(p99[1]) * UNIT_MS[p99[2]]
    )


def post(body: Path) -> Path:
    """A script for wrk that posts the file."""
    script = body.with_suffix(".lua")
    script.write_text(
        f'local file = io.open("{body}", "rb")\n'
        'wrk.method = "POST"\n'
        'wrk.body = file:read("*a")\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    return script


def constant_rate(url: str, rate: int, seconds: int, connections: int, raw: Path) -> str:
    """At a constant rate, whatever the answers do; the line of quantiles."""
    command = [os.environ["YARDSTICK"], "open", url, str(rate), str(seconds), str(connections)]
    text = run(command, raw)
    failed = re.search(r"failed (\d+)", text)
    if not failed or failed[1] != "0":
        sys.exit(f"{raw.name} has errors:\n{text}")
    return text.splitlines()[-1]


def run(command: list[str], raw: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    raw.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def median(rounds: list[Measured]) -> Measured:
    return Measured(
        statistics.median(one.rate for one in rounds),
        statistics.median(one.p50 for one in rounds),
        statistics.median(one.p99 for one in rounds),
    )

"""A short load test with the thresholds of the long one, so that `loadtest/` keeps working."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.server import REPOSITORY, Server

K6 = Path(sys.executable).with_name("k6")
SECONDS = 5
RATE = 5  # requests per second: the machine is shared with the tests


@pytest.mark.parametrize("script", ["infer", "embed", "rerank"])
def test_k6_holds_its_thresholds(rag: Server, tmp_path: Path, script: str) -> None:
    summary = tmp_path / "summary.json"
    environ = {
        **os.environ,
        "BASE_URL": rag.url,
        "RATE": str(RATE),
        "DURATION": f"{SECONDS}s",
        "SUMMARY": str(summary),
    }
    done = subprocess.run(
        [str(K6), "run", "--quiet", str(REPOSITORY / "loadtest" / f"{script}.js")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
    )
    # k6 ends with 99 when a threshold is crossed.
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads(summary.read_text())["metrics"]
    assert metrics["http_req_failed"]["values"]["rate"] == 0
    assert metrics["http_reqs"]["values"]["count"] >= SECONDS * RATE * 0.9


def test_the_smoke_test_passes(rag: Server) -> None:
    done = subprocess.run(
        ["sh", str(REPOSITORY / "tests" / "smoke_test.sh")],
        env={**os.environ, "BASE_URL": rag.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr

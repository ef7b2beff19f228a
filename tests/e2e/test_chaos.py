"""A short chaos run, so that every fault is met once in each run of the tests; and its judge."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from causes import (
    DROPPED_BY_K6,
    KILLED_ROUTER,
    KILLED_WORKER,
    REFUSED,
    STOPPED_ROUTER,
    Failure,
    Window,
    cause,
)
from support.server import REPOSITORY

SEED = 7
OUTAGE_SECONDS = 5
PAUSE_SECONDS = 6
RATE = 30  # requests per second and router: the machine is shared
# One round takes a minute; a machine that is busy takes longer, not for ever.
RUN_SECONDS_MAX = 170

FAULTS = {
    *(f"{role} {how}" for role in ("leader", "standby", "router") for how in ("killed", "stopped")),
    *(f"{role} {how}" for role in ("worker", "etcd member") for how in ("killed", "stopped")),
    *("leader killed as it accepts", "etcd away"),
    *(f"{role} paused" for role in ("leader", "router", "worker")),
    *("leader cut off from etcd", "worker cut off from heads"),
    *("redeploy", "rollout", "bad rollout", "scale"),
}


@pytest.mark.timeout(RUN_SECONDS_MAX + 5)
def test_no_fault_loses_a_request_that_can_be_answered_or_an_accepted_config(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [
            sys.executable, str(REPOSITORY / "tests" / "chaos"),
            "--seed", str(SEED), "--seconds", "0", "--rate", str(RATE),
            "--outage-seconds", str(OUTAGE_SECONDS), "--pause-seconds-max", str(PAUSE_SECONDS),
            "--out", str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "chaos.json").read_text())
    assert set(result["faults"]) == FAULTS
    assert result["configs"]["accepted"] >= 5 and result["configs"]["lost"] == 0
    requests = result["requests"]
    assert requests["failed_and_not_allowed"] == 0
    # Most of what was offered came through: both routers were asked all the while.
    assert requests["answered"] > result["seconds"] * RATE


RESET = 1220  # k6's code for a connection that was reset
WINDOWS = {
    "router 0 killed": Window("router", 0, True, 1000, 2000),
    "router 0 stopped": Window("router", 0, False, 1000.7, 2000),
    "worker killed": Window("worker", 1, True, 1000, 2000),
    "worker stopped": Window("worker", 1, False, 1000, 2000),
}


def failure(method: str = "GET", status: int = 0, code: int = 0, **fields: int) -> Failure:
    times = {"start_ms": 1500, "end_ms": 1600, "router": 0, **fields}
    return Failure(app="echo", method=method, status=status, code=code, error="why", **times)


@pytest.mark.parametrize(
    ("failed", "window", "name"),
    [
        (failure(code=RESET), "router 0 killed", KILLED_ROUTER),
        (failure(code=REFUSED), "router 0 stopped", STOPPED_ROUTER),
        # In the millisecond of the signal.
        (failure(code=REFUSED, start_ms=1000, end_ms=1000), "router 0 stopped", STOPPED_ROUTER),
        (failure("POST", 502, start_ms=500, end_ms=1001), "worker killed", KILLED_WORKER),
    ],
)
def test_a_failure_that_nobody_can_prevent_is_allowed(
    failed: Failure, window: str, name: str
) -> None:
    assert cause(failed, [WINDOWS[window]]) == (name, True)


def test_what_k6_drops_as_it_is_told_to_end_is_of_the_end_and_nothing_else_is() -> None:
    dropped = replace(failure(code=1000), error=DROPPED_BY_K6)
    assert dropped.is_of_the_end(told_ms=1590)
    assert not dropped.is_of_the_end(told_ms=1601)
    assert not failure(code=RESET).is_of_the_end(told_ms=1590)


@pytest.mark.parametrize(
    ("failed", "window"),
    [
        (failure(code=RESET, router=1), "router 0 killed"),
        (failure(code=RESET, start_ms=2001, end_ms=2002), "router 0 killed"),
        (failure(status=503), "router 0 killed"),
        (failure(code=RESET), "router 0 stopped"),
        (failure(code=REFUSED, start_ms=999, end_ms=999), "router 0 stopped"),
        (failure("POST", 502), "worker stopped"),
        (failure("GET", 502), "worker killed"),
        (failure("POST", 503), "worker killed"),
    ],
)
def test_any_other_failure_is_not(failed: Failure, window: str) -> None:
    assert cause(failed, [WINDOWS[window]])[1] is False

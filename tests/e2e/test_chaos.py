"""A short chaos run, so that every fault is met once in each run of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.server import REPOSITORY

SEED = 7
OUTAGE_SECONDS = 5
RATE = 30  # requests per second and router: the machine is shared
# One round takes half a minute; a machine that is busy takes longer, not for ever.
RUN_SECONDS_MAX = 170

FAULTS = {
    *(f"{role} {how}" for role in ("leader", "standby", "router") for how in ("killed", "stopped")),
    *(f"{role} {how}" for role in ("worker", "etcd member") for how in ("killed", "stopped")),
    *("leader killed as it accepts", "etcd away"),
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
            "--outage-seconds", str(OUTAGE_SECONDS), "--out", str(tmp_path),
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

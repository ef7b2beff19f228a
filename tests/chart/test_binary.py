"""The binary takes what the chart gives it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import CASES, containers, of_kind


def mobula(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([os.environ["MOBULA_BIN"], *args], capture_output=True, text=True)


def flags_of(command: str) -> set[str]:
    done = mobula(command, "--help")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


def test_every_flag_that_a_container_gets_is_one_of_its_command() -> None:
    used: dict[str, set[str]] = {}
    for case in CASES:
        for _, container, _ in containers(case):
            if "command" not in container:
                command, *args = container["args"]
                flags = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
                used.setdefault(command, set()).update(flags)
    assert used.keys() == {"head", "router", "worker", "plan", "deploy", "status", "history"}
    for command, flags in used.items():
        assert flags <= flags_of(command), command


@pytest.mark.parametrize("case", ["default", "gpu-autoscale", "everything"])
def test_what_the_chart_deploys_is_a_valid_config(case: str, tmp_path: Path) -> None:
    [job] = of_kind(case, "Job")
    file = tmp_path / "serve.yaml"
    file.write_text(of_kind(case, "ConfigMap")[job]["data"]["serve.yaml"])
    done = mobula("validate", str(file))
    assert done.returncode == 0, done.stderr

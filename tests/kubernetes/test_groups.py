"""A groups file with a mistake ends the head before anything starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.server import binary

RIGHT = """
workerGroups:
  - name: small
    max: 2
    resources: {cpus: 2}
    template: {spec: {containers: [{name: worker, image: i}]}}
"""


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("max: 2", "max: 0", "workerGroups[0].max: 0, allowed are 1 to 1000"),
        ("max: 2", "maximum: 2", "unknown field `maximum`"),
        ("name: worker", "name: main", "none is called `worker`"),
    ],
)
def test_a_mistake_is_told_with_its_field(
    tmp_path: Path, was: str, becomes: str, says: str
) -> None:
    groups = tmp_path / "groups.yaml"
    groups.write_text(RIGHT.replace(was, becomes))
    command = [binary(), "head", "--state-dir", str(tmp_path), "--kubernetes-groups", str(groups)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert says in done.stderr

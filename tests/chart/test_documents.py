"""What is written about the chart is true: its README, its dashboard, its alerts."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from support import CHART, ROOT, of_kind

# Series that a histogram has beside its name.
SUFFIX = re.compile(r"_(bucket|sum|count)$")
NAME = re.compile(r"\b(?:ray_serve|mobula)_[a-z0-9_]+\b")


def metrics_that_exist() -> set[str]:
    sources = (path.read_text() for path in ROOT.glob("crates/*/src/metrics.rs"))
    return {name for text in sources for name in re.findall(r'"((?:ray_serve|mobula)_\w+)"', text)}


def used(text: str) -> set[str]:
    return {SUFFIX.sub("", name) for name in NAME.findall(text)}


def test_the_readme_is_made_of_the_values_as_they_are() -> None:
    script = [sys.executable, str(ROOT / "scripts/chart_readme.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((CHART / "dashboards/serve.json").read_text())
    asked = used(
        " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    )
    assert len(asked) > 15
    assert asked <= metrics_that_exist()


def test_alerts_ask_for_metrics_that_exist() -> None:
    [rules] = of_kind("everything", "PrometheusRule").values()
    asked = used(" ".join(rule["expr"] for rule in rules["spec"]["groups"][0]["rules"]))
    assert len(asked) > 5
    assert asked <= metrics_that_exist()

"""Rendering the chart, and walking what comes out."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/k8s/chart"
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())


@functools.cache
def helm() -> str:
    done = subprocess.run(
        [ROOT / "scripts/fetch_client.sh", "helm"], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def run(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm(), *args], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )


def template(*args: str) -> subprocess.CompletedProcess[str]:
    return run("template", "r", str(CHART), "--namespace", "ns", *args)


@functools.cache
def render(case: str) -> str:
    """What the values of ci/<case>-values.yaml make."""
    done = template("--values", str(CHART / "ci" / f"{case}-values.yaml"))
    assert done.returncode == 0, done.stderr
    return done.stdout


# The loader in C where PyYAML has it: the one in Python takes seconds for a chart.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def objects(text: str) -> list[Object]:
    return [document for document in yaml.load_all(text, LOADER) if document]


@functools.cache
def of_case(case: str) -> list[Object]:
    """The objects that a case makes; not to be changed."""
    return objects(render(case))


def of_kind(case: str, kind: str) -> dict[str, Object]:
    found = (item for item in of_case(case) if item["kind"] == kind)
    return {item["metadata"]["name"]: item for item in found}


@functools.cache
def groups(case: str) -> list[Object]:
    """The worker groups, as the head reads them."""
    files = (item.get("data", {}) for item in of_kind(case, "ConfigMap").values())
    texts = [data["groups.yaml"] for data in files if "groups.yaml" in data]
    return [group for text in texts for group in yaml.load(text, LOADER)["workerGroups"]]


def pods(case: str) -> Iterator[tuple[str, Object]]:
    """Every pod spec with the name of what it belongs to, those in worker groups included."""
    for item in of_case(case):
        spec = item.get("spec", {})
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], spec
        elif "template" in spec:
            yield item["metadata"]["name"], spec["template"]["spec"]
    for group in groups(case):
        yield f"group {group['name']}", group["template"]["spec"]


def containers(case: str) -> Iterator[tuple[str, Object, Object]]:
    """Every container: a name for it, itself, and its pod's spec."""
    for owner, spec in pods(case):
        for container in spec.get("initContainers", []) + spec["containers"]:
            yield f"{owner}/{container['name']}", container, spec

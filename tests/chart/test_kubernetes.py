"""Every object is one that Kubernetes takes, in each release that the chart is for."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from support import CASES, CHART, Object, groups, of_case

RELEASES = ["1.33", "1.34", "1.35", "1.36", "1.37"]

# Custom resources: their schemas are not Kubernetes' own.
CUSTOM = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}

SCHEMAS = resources.files("kubernetes_validate") / "kubernetes-json-schema"


@functools.cache
def definitions(release: str) -> tuple[Any, Registry]:
    """The folder of a release, and its shared definitions. Strict: unknown fields are errors."""
    folder = SCHEMAS / f"v{release}.0-local-strict"
    shared = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    return folder, (shared @ Registry()).crawl()


@functools.cache
def validator(release: str, api_version: str, kind: str) -> Any:
    folder, registry = definitions(release)
    group, _, version = api_version.rpartition("/")
    short = "-".join(part for part in (group.split(".")[0], version) if part)
    schema = json.loads((folder / f"{kind.lower()}-{short}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def rendered() -> list[Object]:
    """The objects of all cases, each once; a worker group's template as the pod it will be."""
    found = {}
    for case in CASES:
        for item in of_case(case):
            if item["apiVersion"] not in CUSTOM:
                found[json.dumps(item, sort_keys=True)] = item
        for group in groups(case):
            pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
            pod["metadata"] = {"name": group["name"], **pod["metadata"]}
            found[json.dumps(pod, sort_keys=True)] = pod
    return list(found.values())


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid(release: str) -> None:
    problems = []
    for item in rendered():
        for error in validator(release, item["apiVersion"], item["kind"]).iter_errors(item):
            name = f"{item['kind']} {item['metadata']['name']}"
            problems.append(f"{name}: {error.json_path}: {error.message}")
    assert problems == []


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    [wrong] = [item for item in rendered() if item["kind"] == "Deployment"][:1]
    wrong = json.loads(json.dumps(wrong))
    wrong["spec"]["template"]["spec"]["containers"][0]["resourcez"] = {}
    errors = list(validator("1.33", "apps/v1", "Deployment").iter_errors(wrong))
    assert ["resourcez" in error.message for error in errors] == [True]


def test_the_chart_is_for_the_releases_that_are_checked() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={RELEASES[0]}.0-0"

"""The sample for GKE: its Terraform can be read, and the chart takes what Flux would give it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT, objects, template
from test_kubernetes import validator

GKE = ROOT / "deploy/gke"
FILES = sorted((GKE / "terraform").glob("*.tf"))
READ = "import hcl2, json, sys; print(json.dumps(hcl2.load(open(sys.argv[1]))))"


@functools.cache
def python_with_hcl() -> str:
    setup = [ROOT / "tests/setup.sh", ROOT / "tests/chart/requirements-terraform.txt"]
    done = subprocess.run(setup, stdout=subprocess.PIPE, text=True, check=True)
    return f"{done.stdout.strip()}/bin/python"


@functools.cache
def parsed(file: Path) -> dict[str, Any]:
    command = [python_with_hcl(), "-c", READ, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{file.name}: {done.stderr}"
    return json.loads(done.stdout)


def names(kind: str) -> set[str]:
    """`type.name` of resources and data, the name alone of others."""
    found = set()
    for file in FILES:
        for block in parsed(file).get(kind, []):
            for first, inner in block.items():
                first = first.strip('"')
                if kind in ("resource", "data"):
                    found |= {f"{first}.{second.strip(chr(34))}" for second in inner}
                else:
                    found.add(first)
    return found


def test_terraform_names_only_what_it_declares() -> None:
    text = "\n".join(file.read_text() for file in FILES)
    used = set(re.findall(r"\bvar\.(\w+)", text))
    assert used == names("variable")
    resources = names("resource")
    assert {"google_container_cluster.this", "google_container_node_pool.gpu"} <= resources
    assert set(re.findall(r"(?<![\w.])google_\w+\.\w+", text)) <= resources
    assert {f"google_{name}" for name in re.findall(r"data\.google_(\w+\.\w+)", text)} == names(
        "data"
    )


def test_terraform_that_is_broken_would_be_found(tmp_path: Path) -> None:
    broken = tmp_path / "main.tf"
    broken.write_text('resource "google_container_cluster" "this" {\n  name = \n}\n')
    with pytest.raises(AssertionError, match=r"main\.tf"):
        parsed(broken)


def test_the_chart_takes_the_values_of_the_helm_release(tmp_path: Path) -> None:
    [release] = [
        item
        for item in objects((GKE / "flux/release.yaml").read_text())
        if item["kind"] == "HelmRelease"
    ]
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(release["spec"]["values"]))
    done = template("--values", str(values))
    assert done.returncode == 0, done.stderr
    made = objects(done.stdout)
    [route] = [item for item in made if item["kind"] == "HTTPRoute"]
    gateways = [
        item["metadata"]["name"]
        for item in objects((GKE / "flux/gateway.yaml").read_text())
        if item["kind"] == "Gateway"
    ]
    assert [parent["name"] for parent in route["spec"]["parentRefs"]] == gateways


def test_flux_applies_files_that_are_there() -> None:
    kubectl = subprocess.run(
        [ROOT / "scripts/fetch_client.sh", "kubectl"], stdout=subprocess.PIPE, text=True, check=True
    )
    command = [kubectl.stdout.strip(), "kustomize", str(GKE / "flux")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = {item["kind"] for item in objects(done.stdout)}
    assert {"Namespace", "OCIRepository", "HelmRelease", "Gateway"} <= kinds


def test_the_job_with_k6_is_one_that_kubernetes_takes() -> None:
    text = (GKE / "k6-job.yaml").read_text()
    [job] = objects(text)
    assert list(validator("1.33", "batch/v1", "Job").iter_errors(job)) == []
    for file in re.findall(r"--from-file=(\S+)", text):
        assert (ROOT / file).is_file()

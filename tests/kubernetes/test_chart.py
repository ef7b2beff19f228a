"""What the chart renders is taken by a real API server, its admission included."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from cluster.control_plane import REPOSITORY, ControlPlane, fetched

CHART = REPOSITORY / "deploy" / "k8s" / "chart"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "chart"
EXTENSIONS = ("gateway.networking.k8s.io/", "monitoring.coreos.com/")


@pytest.fixture(scope="module")
def restricted(plane: ControlPlane) -> str:
    """A namespace that takes no pod below the restricted profile."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": labels}
    plane.done("POST", "/api/v1/namespaces", {"metadata": metadata})
    return NAMESPACE


def known(rendered: str) -> str:
    """Without the kinds that only their operators bring along."""
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    own = [it for it in documents if not it["apiVersion"].startswith(EXTENSIONS)]
    return yaml.safe_dump_all(own)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_object_of_the_chart_is_accepted(
    plane: ControlPlane, restricted: str, values: Path
) -> None:
    helm = [str(fetched("fetch_client.sh", "helm")), "template", "release", str(CHART)]
    kubectl = [str(fetched("fetch_client.sh", "kubectl")), "--kubeconfig", str(plane.kubeconfig)]
    rendered = subprocess.run(
        [*helm, "--namespace", restricted, "--values", str(values), "--kube-version", "1.36"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rendered.returncode == 0, rendered.stderr
    applied = subprocess.run(
        [*kubectl, "apply", "--namespace", restricted, "--dry-run=server", "--filename", "-"],
        input=known(rendered.stdout),
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    # Workloads are taken with a warning where their pods would be refused.
    assert "would violate PodSecurity" not in applied.stderr, applied.stderr


def test_a_kind_that_the_cluster_lacks_is_told_before_anything_is_made(
    plane: ControlPlane, restricted: str
) -> None:
    helm = [str(fetched("fetch_client.sh", "helm")), "--kubeconfig", str(plane.kubeconfig)]
    done = subprocess.run(
        [*helm, "install", "r", str(CHART), "--namespace", restricted]
        + ["--set", "metrics.serviceMonitor.enabled=true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    kind = "monitoring.coreos.com/v1/ServiceMonitor"
    assert f"metrics.serviceMonitor.enabled: this cluster has no {kind}" in done.stderr, done.stderr
    secrets = plane.get(f"/api/v1/namespaces/{restricted}/secrets")["items"]
    assert secrets == [], "no release, no token"

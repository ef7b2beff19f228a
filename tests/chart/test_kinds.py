"""Objects of kinds that not every cluster has: refused where a cluster says so, before anything is
made; rendered where no cluster was asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cluster import cluster
from support import CHART, objects, run, template

MONITORING = "monitoring.coreos.com/v1"
GATEWAY = "gateway.networking.k8s.io/v1"
KINDS = {
    "metrics.serviceMonitor": (MONITORING, "servicemonitors", "ServiceMonitor"),
    "metrics.podMonitor": (MONITORING, "podmonitors", "PodMonitor"),
    "metrics.prometheusRule": (MONITORING, "prometheusrules", "PrometheusRule"),
    "httpRoute": (GATEWAY, "httproutes", "HTTPRoute"),
    "grpcRoute": (GATEWAY, "grpcroutes", "GRPCRoute"),
}
each_value = pytest.mark.parametrize("value", KINDS)


def enabled(value: str) -> tuple[str, ...]:
    gateway = () if value.startswith("metrics") else (f"{value}.parentRefs[0].name=gateway",)
    return ("--set", ",".join((f"{value}.enabled=true", *gateway)))


def on_a_cluster(
    folder: Path, *args: str, kinds: dict[str, dict[str, str]]
) -> subprocess.CompletedProcess[str]:
    with cluster(folder, kinds=kinds) as env:
        command = ["template", "r", str(CHART), "--namespace", "ns", "--dry-run=server"]
        return run(*command, "--disable-openapi-validation", *args, env=env)


@each_value
def test_a_cluster_without_the_kind_is_told_with_the_value_and_the_kind(
    tmp_path: Path, value: str
) -> None:
    version, _, kind = KINDS[value]
    # The group is there, as after an older release of who brings it; this kind is not.
    done = on_a_cluster(tmp_path, *enabled(value), kinds={version: {"others": "Other"}})
    assert done.returncode != 0
    wanted = f"{value}.enabled: this cluster has no {version}/{kind}; install the CRDs of "
    assert wanted in done.stderr, done.stderr


@each_value
def test_a_cluster_with_the_kind_gets_the_object(tmp_path: Path, value: str) -> None:
    version, plural, kind = KINDS[value]
    done = on_a_cluster(tmp_path, *enabled(value), kinds={version: {plural: kind}})
    assert done.returncode == 0, done.stderr
    assert kind in {item["kind"] for item in objects(done.stdout)}


@each_value
def test_without_a_cluster_it_renders(value: str) -> None:
    done = template(*enabled(value))
    assert done.returncode == 0, done.stderr
    assert KINDS[value][2] in {item["kind"] for item in objects(done.stdout)}


def test_a_cluster_without_any_of_them_takes_the_defaults(tmp_path: Path) -> None:
    done = on_a_cluster(tmp_path, kinds={})
    assert done.returncode == 0, done.stderr

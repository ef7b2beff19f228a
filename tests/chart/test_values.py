"""Values that are wrong are refused with the place, and what is allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from support import CHART, template

WRONG = {
    "head.replica=3": "at '/head': additional properties 'replica' not allowed",
    "fullnameOverride=1rag": "at '/fullnameOverride': '1rag' does not match pattern",
    "head.replicas=0": "at '/head/replicas': minimum: got 0, want 1",
    "head.replicas=two": "at '/head/replicas': got string, want integer",
    "head.rayVersion=2.39.0": "at '/head/rayVersion': '2.39.0' does not match pattern "
    r"'^2\\.(4[0-9]|5[0-9]|60)\\.[0-9]+$'",
    "head.leaseSeconds=1": "at '/head/leaseSeconds': minimum: got 1, want 2",
    "router.service.type=Internal": "at '/router/service/type': value must be one of "
    "'ClusterIP', 'NodePort', 'LoadBalancer'",
    "etcd.replicas=2": "at '/etcd/replicas': value must be one of 1, 3, 5",
    "etcd.external.endpoints[0]=etcd:2379": "at '/etcd/external/endpoints/0': 'etcd:2379' does not "
    "match pattern '^https?://[^/]+$'",
    "workerGroups[0].minReplicas=1": "at '/workerGroups/0': missing property 'name'",
    "workerGroups[0].name=Big": "at '/workerGroups/0/name': 'Big' does not match pattern "
    "'^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$'",
    "workerGroups[0].maxReplicas=0": "at '/workerGroups/0/maxReplicas': minimum: got 0, want 1",
    "workerGroups[0].strategy=recreate": "at '/workerGroups/0/strategy': value must be one of "
    "'rolling', 'blueGreen'",
    "workerGroups[0].offers.cpu=1": "at '/workerGroups/0/offers': additional properties 'cpu' "
    "not allowed",
    "auth.joinToken=short": "at '/auth/joinToken': 'short' does not match pattern",
    "auth.adminToken=a-token-that-is-long short": "at '/auth/adminToken': 'a-token-that-is-long "
    "short' does not match pattern",
    "image.digest=sha256:12": "at '/image/digest': 'sha256:12' does not match pattern",
    "metrics.prometheusRule.errorRatio=2": "at '/metrics/prometheusRule/errorRatio': maximum: "
    "got 2, want 1",
    "router.autoscaling.maxReplicas=0": "at '/router/autoscaling/maxReplicas': minimum: got 0, "
    "want 1",
    "router.service.loadBalancerSourceRanges[0]=10.0.0.1": "at "
    "'/router/service/loadBalancerSourceRanges/0': '10.0.0.1' does not match pattern '/[0-9]+$'",
    "grpcRoute.parentRef=g": "at '/grpcRoute': additional properties 'parentRef' not allowed",
    "admissionPolicy.enabled=maybe": "at '/admissionPolicy/enabled': got string, want boolean",
    "etcd.image.digest=3.6": "at '/etcd/image/digest': '3.6' does not match pattern",
    "ingress.hosts[0].path=/": "at '/ingress/hosts/0': additional properties 'path' not allowed",
}

# What one value alone cannot show.
AGAINST_EACH_OTHER = {
    "etcd.enabled=false": "head.replicas: 2 heads need etcd (etcd.enabled, or "
    "etcd.external.endpoints); without it only 1 is allowed",
    "etcd.external.endpoints[0]=http://e:2379": "etcd.external.endpoints: set etcd.enabled to "
    "false to use an etcd of yours",
    "nameOverride=1a.b,fullnameOverride=": "fullnameOverride: 'r-1a.b' names Services, so it must "
    "begin with a-z and have only a-z, 0-9 and '-'",
    "etcd.external.user=me": "etcd.external.passwordSecretName: needed with etcd.external.user",
    "etcd.external.clientCertificate=true": "etcd.external.tlsSecretName: needed with "
    "etcd.external.clientCertificate",
    "tls.caConfigMap=ca": "tls.existingSecret: needed with tls.caConfigMap",
    "httpRoute.enabled=true": "httpRoute.parentRefs: name at least one gateway",
    "grpcRoute.enabled=true": "grpcRoute.parentRefs: name at least one gateway",
    "router.autoscaling.enabled=true,router.autoscaling.maxReplicas=1": "router.autoscaling."
    "maxReplicas: 1 is less than router.replicas, 2",
    "ingress.enabled=true": "ingress.hosts: name at least one host",
    "workerGroups[0].name=a,workerGroups[1].name=a": "workerGroups: the name 'a' is used twice",
    "workerGroups[0].name=router": "workerGroups: a group cannot be named 'router', that is the "
    "name of a role",
    "workerGroups[0].name=a,workerGroups[0].minReplicas=5": "workerGroups.a.maxReplicas: 4 is "
    "less than minReplicas, 5",
    "workerGroups[0].name=a,workerGroups[0].surge=5": "workerGroups.a.surge: 5 is more than "
    "maxReplicas, 4",
    "workerGroups[0].name=a,workerGroups[0].resources.limits.cpu=null,"
    "workerGroups[0].resources.requests.cpu=null": "workerGroups.a.offers.cpus: needed where "
    "resources name no cpu",
}


@pytest.mark.parametrize("values", WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(values: str) -> None:
    done = template("--set", values)
    assert done.returncode != 0
    assert WRONG[values] in done.stderr, done.stderr


@pytest.mark.parametrize("values", AGAINST_EACH_OTHER)
def test_values_that_cannot_work_together_are_named(values: str) -> None:
    done = template("--set", values)
    assert done.returncode != 0
    assert AGAINST_EACH_OTHER[values] in done.stderr, done.stderr


def test_objects_of_kubernetes_are_open_to_fields_that_are_newer_than_the_chart() -> None:
    newer = "router.affinity.newField=x,workerDefaults.resources.newField=y"
    assert template("--set", newer).returncode == 0


def keys(schema: dict[str, Any], values: Any, path: str) -> tuple[set[str], set[str]]:
    """Keys of closed objects: those of the schema, and those of values.yaml."""
    of_schema: set[str] = set()
    of_values: set[str] = set()
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if schema.get("additionalProperties") is False and isinstance(values, dict) and values:
        of_schema |= {f"{path}.{key}" for key in schema["properties"]}
        of_values |= {f"{path}.{key}" for key in values}
        for key, inner in schema["properties"].items():
            below = keys(inner, values.get(key), f"{path}.{key}")
            of_schema |= below[0]
            of_values |= below[1]
    return of_schema, of_values


SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    of_schema, of_values = keys(SCHEMA, yaml.safe_load((CHART / "values.yaml").read_text()), "")
    assert len(of_schema) > 150
    assert of_schema == of_values

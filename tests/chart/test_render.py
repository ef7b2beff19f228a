"""What the chart makes of the values in ci/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support import CASES, CHART, containers, groups, objects, of_kind, pods, render, run, template

GOLDEN = Path(__file__).parent / "golden"

each_case = pytest.mark.parametrize("case", CASES)


@each_case
def test_helm_finds_nothing_to_say_against_it(case: str) -> None:
    done = run("lint", "--strict", str(CHART), "--values", str(CHART / f"ci/{case}-values.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@each_case
def test_it_renders_as_it_did_before(case: str, pytestconfig: pytest.Config) -> None:
    file = GOLDEN / f"{case}.yaml"
    if pytestconfig.getoption("--update-golden"):
        file.write_text(render(case))
    assert render(case) == file.read_text(), "meant? pytest tests/chart --update-golden"


@each_case
def test_every_container_satisfies_the_restricted_standard(case: str) -> None:
    seen = 0
    for name, container, spec in containers(case):
        seen += 1
        pod, own = spec["securityContext"], container["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["readOnlyRootFilesystem"] is True, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert "runAsUser" not in own and "privileged" not in own, name
        assert not spec.get("hostNetwork") and not spec.get("hostPID"), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
    assert seen >= 3


@each_case
def test_every_container_says_what_it_needs(case: str) -> None:
    for name, container, _ in containers(case):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name


@each_case
def test_every_mount_has_its_volume(case: str) -> None:
    claims = {
        claim["metadata"]["name"]
        for item in of_kind(case, "StatefulSet").values()
        for claim in item["spec"].get("volumeClaimTemplates", [])
    }
    for name, container, spec in containers(case):
        volumes = {volume["name"] for volume in spec["volumes"]} | claims
        for mount in container.get("volumeMounts", []):
            assert mount["name"] in volumes, f"{name}: {mount['name']}"


@each_case
def test_only_the_head_may_speak_to_the_kubernetes_api(case: str) -> None:
    for name, spec in pods(case):
        wanted = name.endswith("-head") and bool(groups(case))
        assert spec["automountServiceAccountToken"] is wanted, name


@each_case
def test_the_rights_are_those_that_the_head_uses(case: str) -> None:
    roles = of_kind(case, "Role")
    assert bool(roles) == bool(groups(case))
    for name, role in roles.items():
        assert role["rules"] == [
            {
                "apiGroups": [""],
                "resources": ["pods"],
                "verbs": ["create", "delete", "get", "list", "watch"],
            },
            {
                "apiGroups": ["policy"],
                "resources": ["poddisruptionbudgets"],
                "verbs": ["create", "delete", "get", "list", "patch"],
            },
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [f"{name}-cluster"],
                "verbs": ["get", "patch"],
            },
            {
                "apiGroups": ["events.k8s.io"],
                "resources": ["events"],
                "verbs": ["create", "patch"],
            },
        ]
        assert f"{name}-cluster" in of_kind(case, "ConfigMap")


@each_case
def test_a_budget_never_blocks_a_drain(case: str) -> None:
    owners = of_kind(case, "StatefulSet") | of_kind(case, "Deployment")
    budgets = of_kind(case, "PodDisruptionBudget")
    for budget in budgets.values():
        spec = budget["spec"]
        [owner] = [
            owner
            for owner in owners.values()
            if owner["spec"]["selector"]["matchLabels"] == spec["selector"]["matchLabels"]
        ]
        # Without a number of its own it has an autoscaler, whose least number is more than one.
        assert owner["spec"].get("replicas", 2) > 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    if case == "single":
        assert budgets == {}


@each_case
def test_every_selector_finds_pods(case: str) -> None:
    labels = [
        item["spec"]["template"]["metadata"]["labels"]
        for kind in ("StatefulSet", "Deployment", "Job")
        for item in of_kind(case, kind).values()
    ]
    labels += [item["metadata"]["labels"] for item in of_kind(case, "Pod").values()]
    labels += [group["template"]["metadata"]["labels"] for group in groups(case)]
    # Who has none in this case: workers from elsewhere, a config that the chart does not deploy.
    absent = {"worker", "deploy"} if case == "external-etcd" else set()
    wanted = [item["spec"]["selector"] for item in of_kind(case, "Service").values()]
    wanted += [
        item["spec"]["podSelector"]["matchLabels"]
        for item in of_kind(case, "NetworkPolicy").values()
    ]
    for selector in wanted:
        found = any(selector.items() <= own.items() for own in labels)
        assert found or selector["app.kubernetes.io/component"] in absent, selector


@each_case
def test_worker_groups_are_what_the_head_takes(case: str) -> None:
    keys = {"name", "min", "max", "priority", "idle_timeout_s", "headroom", "resources", "template"}
    keys |= {"startup_timeout_s", "strategy", "surge", "bake_s"}
    for group in groups(case):
        assert group.keys() == keys
        assert 0 <= group["min"] <= group["max"] and group["max"] >= 1
        assert group["resources"].keys() <= {"cpus", "gpus", "memory"}
        assert group["resources"]["cpus"] > 0
        spec = group["template"]["spec"]
        assert "worker" in [container["name"] for container in spec["containers"]]
        assert spec["restartPolicy"] == "OnFailure"
        assert spec["terminationGracePeriodSeconds"] >= 15
        taken = {"name", "generateName", "namespace", "ownerReferences"}
        assert not taken & group["template"]["metadata"].keys()


def test_nodes_are_read_only_where_that_was_asked_for() -> None:
    for case in CASES:
        wide = of_kind(case, "ClusterRole") | of_kind(case, "ClusterRoleBinding")
        assert list(wide) == (["ns-rag-nodes"] if case == "everything" else [])
    [role] = of_kind("everything", "ClusterRole").values()
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}
    assert role["rules"] == [rule]


def test_a_group_offers_what_its_limits_say_or_what_it_is_told_to() -> None:
    [gpu, cpu] = groups("gpu-autoscale")
    assert gpu["resources"] == {"cpus": 3.5, "gpus": 1, "memory": "12Gi"}
    assert cpu["resources"] == {"cpus": 2, "gpus": 0, "memory": "4Gi"}
    assert groups("everything")[0]["resources"] == {"cpus": 4, "gpus": 0, "memory": "3Gi"}


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ("", "registry.k8s.io/etcd:3.6.4-0"),
        ("etcd.image.tag=3.6.9-0", "registry.k8s.io/etcd:3.6.9-0"),
        ("etcd.image.registry=mirror.example", "mirror.example/etcd:3.6.4-0"),
        (f"etcd.image.digest=sha256:{'a' * 64}", f"registry.k8s.io/etcd@sha256:{'a' * 64}"),
        ("global.imageRegistry=mirror.example", "mirror.example/etcd:3.6.4-0"),
        ("etcd.image.repository=bitnami/etcd", "registry.k8s.io/bitnami/etcd:3.6.4-0"),
    ],
)
def test_etcds_image_is_the_one_that_is_named(values: str, image: str) -> None:
    done = template("--set", values)
    assert done.returncode == 0, done.stderr
    [etcd] = [
        item
        for item in objects(done.stdout)
        if item["kind"] == "StatefulSet" and item["metadata"]["name"].endswith("-etcd")
    ]
    assert [one["image"] for one in etcd["spec"]["template"]["spec"]["containers"]] == [image]


def test_the_policy_for_the_heads_pods_names_what_the_groups_have() -> None:
    [policy] = of_kind("everything", "ValidatingAdmissionPolicy").values()
    lists = {item["name"]: item["expression"] for item in policy["spec"]["variables"]}
    assert json.loads(lists["images"]) == ["registry.example/models/mobula"]
    assert json.loads(lists["secrets"]) == ["rag-auth", "rag8s-hf-token"]
    assert json.loads(lists["accounts"]) == ["default"]
    [binding] = of_kind("everything", "ValidatingAdmissionPolicyBinding").values()
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


def test_heads_restart_when_the_groups_change_and_not_for_a_new_chart() -> None:
    [head] = [
        item for name, item in of_kind("default", "StatefulSet").items() if name.endswith("-head")
    ]
    metadata = head["spec"]["template"]["metadata"]
    assert list(metadata["annotations"]) == ["checksum/worker-groups"]
    assert not any("version" in label or "chart" in label for label in metadata["labels"])


def test_nothing_is_deployed_when_there_is_no_config() -> None:
    assert of_kind("external-etcd", "Job") == {}


def test_a_config_as_text_is_deployed_letter_by_letter() -> None:
    values = yaml.safe_load((CHART / "ci/everything-values.yaml").read_text())
    [job] = of_kind("everything", "Job")
    assert of_kind("everything", "ConfigMap")[job]["data"]["serve.yaml"] == values["serveConfig"]

"""The chart's life: installed, tested, upgraded, rolled back and uninstalled by helm on a real API
server, with every role's real process in its pod, while requests go on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import addresses, image
from cluster.control_plane import ControlPlane
from cluster.image_kubelet import ImageKubelet
from cluster.installed import CHANGES, NAME, VALUES, Installed, sleep_app, upgrade_and_go_back
from cluster.release import HELM_TIMEOUT, WAIT_S, merged
from cluster.service_proxy import ServiceProxy
from conftest import LIVE
from support.config import Json
from support.waiting import wait_until

NODES = ["images-one", "images-two"]
# Kinds of the chart that are in no namespace.
WIDE = "validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles"
# An upgrade, the way back, and what helm itself waits for at most.
pytestmark = pytest.mark.timeout(600)
ETCD = "registry.k8s.io/etcd:3.6.4-0"


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageKubelet]:
    """A Kubernetes of its own, whose nodes run pods from images."""
    addresses.check_ports()
    mark = uuid.uuid4().hex
    folder = tmp_path_factory.mktemp("helm")
    plane = ControlPlane(folder, mark)
    ours = image.mobula(tmp_path_factory.mktemp("image"))
    images = {
        "mobula:1": ours,
        "mobula:2": ours,
        ETCD: image.etcd(tmp_path_factory.mktemp("etcd-image")),
    }
    kubelet = ImageKubelet(plane, NODES, mark, images)
    proxy = ServiceProxy(kubelet)
    logs = lambda: [("pods", kubelet.log_tails())]  # noqa: E731
    try:
        plane.start()
        kubelet.start()
        proxy.start()
        LIVE.append(logs)
        yield kubelet
    finally:
        LIVE[:] = [other for other in LIVE if other is not logs]
        kubelet.stop()
        proxy.stop()
        plane.stop()


def disk(plane: ControlPlane, folder: Path) -> None:
    """A volume for whoever claims one."""
    folder.mkdir(parents=True)
    name = f"disk-{uuid.uuid4().hex[:8]}"
    plane.done("POST", "/api/v1/persistentvolumes", {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        },
    })  # fmt: skip


def made(kubelet: ImageKubelet, folder: Path) -> Installed:
    """A namespace with three disks for etcd."""
    for number in range(3):
        disk(kubelet.plane, folder / f"disk-{number}")
    namespace = f"helm-{uuid.uuid4().hex[:8]}"
    address = addresses.of_service(namespace, NAME)
    return Installed(kubelet.plane, namespace, folder, lambda: address)


@pytest.fixture(scope="module")
def release(kubelet: ImageKubelet, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The chart, installed. Each test upgrades to what it needs, and leaves it whole."""
    release = made(kubelet, tmp_path_factory.mktemp("release"))
    done = release.install(VALUES)
    assert done.returncode == 0, done.stdout + done.stderr
    return release


def test_an_installed_chart_serves_and_passes_its_own_test(release: Installed) -> None:
    assert release.upgrade(VALUES).returncode == 0
    release.settle("mobula:1")
    done = release.helm("test", "r", "--timeout", "120s")
    assert done.returncode == 0, done.stdout + done.stderr
    with release.load() as clients:
        clients.wait_for_more()
    assert clients.failed() == []


def test_what_heads_keep_in_the_owner_of_the_pods_outlives_an_upgrade_and_the_way_back(
    release: Installed,
) -> None:
    assert release.upgrade(VALUES).returncode == 0
    owner, kept = f"{NAME}-cluster", "rollout.mobula.dev/some"
    assert release.kubectl("annotate", "configmap", owner, f"{kept}=verdict").returncode == 0

    def annotations() -> Json:
        found = release.plane.get(f"{release.core}/configmaps/{owner}")
        return found["metadata"]["annotations"]

    # The object itself changes.
    changed = merged(VALUES, {"commonAnnotations": {"owner": "search"}})
    assert release.upgrade(changed).returncode == 0
    assert annotations()["owner"] == "search" and annotations()[kept] == "verdict"
    assert release.rollback().returncode == 0
    assert "owner" not in annotations() and annotations()[kept] == "verdict"
    release.kubectl("annotate", "configmap", owner, f"{kept}-")


def test_the_charts_test_fails_when_an_application_does_not_run(release: Installed) -> None:
    wrong = {**sleep_app(1), "name": "wrong", "route_prefix": "/wrong", "args": {"no": "such"}}
    config = {"serveConfig": {"applications": [sleep_app(3), wrong]}}
    assert release.upgrade(merged(VALUES, config)).returncode == 0
    done = release.helm("test", "r", "--timeout", "120s")
    assert done.returncode != 0, done.stdout
    # What it leaves for whoever looks.
    release.kubectl("delete", "pod", "rag-test")
    assert release.upgrade(VALUES).returncode == 0
    done = release.helm("test", "r", "--timeout", "120s")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", CHANGES)
def test_an_upgrade_and_the_way_back_lose_no_request(release: Installed, what: str) -> None:
    upgrade_and_go_back(release, VALUES, what)


def test_kubectl_drain_of_each_node_in_turn_loses_no_request(release: Installed) -> None:
    """Heads, routers, workers and etcd's members leave one node after the other."""
    assert release.upgrade(merged(VALUES, {"workerDefaults": {"minReplicas": 2}})).returncode == 0
    release.settle("mobula:1")
    everybody = ("head", "router", "worker", "etcd")
    before = {uid for component in everybody for uid in release.pods(component)}
    with release.load() as clients:
        clients.wait_for_more()
        for node in NODES:
            try:
                done = release.kubectl(
                    "drain", node, "--delete-emptydir-data", f"--timeout={HELM_TIMEOUT}"
                )
                assert done.returncode == 0, done.stdout + done.stderr
            finally:
                release.kubectl("uncordon", node)
            release.settle("mobula:1")
        clients.wait_for_more()
    assert clients.failed() == []
    after = {uid for component in everybody for uid in release.pods(component)}
    assert not before & after, "every pod was on one of the nodes"


def test_an_image_that_cannot_be_pulled_is_taken_back_without_losing_a_request(
    release: Installed,
) -> None:
    assert release.upgrade(VALUES).returncode == 0
    release.settle("mobula:1")
    with release.load() as clients:
        clients.wait_for_more()
        wrong = merged(VALUES, {"image": {"tag": "nowhere"}})
        done = release.upgrade(wrong, "--rollback-on-failure", "--timeout", "20s")
        assert done.returncode != 0
        assert release.revision()["description"].startswith("Rollback to")
        release.settle("mobula:1")
        clients.wait_for_more()
    assert clients.failed() == []


ALLOWED = [
    *[(verb, "pods") for verb in ("create", "delete", "get", "list", "watch")],
    *[(verb, "poddisruptionbudgets.policy") for verb in ("create", "delete", "get", "list")],
    ("patch", "poddisruptionbudgets.policy"),
    ("get", "configmaps/rag-cluster"),
    ("patch", "configmaps/rag-cluster"),
    ("create", "events.events.k8s.io"),
    ("patch", "events.events.k8s.io"),
]
DENIED = [
    ("patch", "pods"),
    ("deletecollection", "pods"),
    ("create", "pods --subresource=exec"),
    ("create", "pods --subresource=eviction"),
    ("get", "pods --subresource=log"),
    ("get", "secrets"),
    ("list", "secrets"),
    ("list", "configmaps"),
    ("get", "configmaps/other"),
    ("patch", "configmaps/rag-worker-groups"),
    ("update", "configmaps/rag-cluster"),
    ("delete", "configmaps/rag-cluster"),
    ("create", "deployments.apps"),
    ("patch", "statefulsets.apps"),
    ("create", "serviceaccounts --subresource=token"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("list", "nodes"),
    ("create", "namespaces"),
]


@pytest.mark.parametrize(("verb", "resource"), ALLOWED)
def test_the_head_may(release: Installed, verb: str, resource: str) -> None:
    assert release.can_i(verb, resource, "rag")
    assert not release.can_i(verb, resource, "default"), "nor may anybody else"


@pytest.mark.parametrize(("verb", "resource"), DENIED)
def test_the_head_may_not(release: Installed, verb: str, resource: str) -> None:
    assert not release.can_i(verb, resource, "rag")
    assert release.can_i(verb, resource), "the question is one that can be answered by yes"


def test_the_heads_rights_end_at_its_namespace(release: Installed) -> None:
    for verb, resource in ALLOWED:
        assert not release.can_i(verb, resource, "rag", "--namespace=default"), resource


def worker_pod(release: Installed) -> Json:
    """A pod as the head makes them, to be made once more."""
    [pod, *_] = release.pods("worker").values()
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "another"}, "spec": spec}


def asked_by_the_head(release: Installed, pod: Json) -> str:
    """What the API server says to the head that wants to make this pod; empty: nothing."""
    file = release.folder / "pod.json"
    file.write_text(json.dumps(pod))
    user = f"--as=system:serviceaccount:{release.namespace}:rag"
    done = release.kubectl("create", "--dry-run=server", f"--filename={file}", user)
    return done.stderr if done.returncode else ""


BEYOND_THE_TEMPLATES: dict[str, tuple[Json, str]] = {
    "another image": (
        {"containers": [{"name": "worker", "image": "elsewhere/mobula:1"}]},
        "only the images of the worker groups",
    ),
    "an image whose name begins alike": (
        {"containers": [{"name": "worker", "image": "mobula-else:1"}]},
        "only the images of the worker groups",
    ),
    "the head's own account": ({"serviceAccountName": "rag"}, "no token of them"),
    "a token": ({"automountServiceAccountToken": True}, "no token of them"),
    "a Secret of somebody else": (
        {"volumes": [{"name": "auth", "secret": {"secretName": "other"}}]},
        "mount only the Secrets of the worker groups",
    ),
    "a kind of volume that no group has": (
        {"volumes": [{"name": "auth", "configMap": {"name": "other"}}]},
        "only volumes of the kinds",
    ),
    "a Secret in its environment": (
        {"containers": [{
            "name": "worker", "image": "mobula:1",
            "envFrom": [{"secretRef": {"name": "other"}}],
        }]},
        "read only the Secrets of the worker groups",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEYOND_THE_TEMPLATES)
def test_the_admission_policy_refuses_the_head(release: Installed, what: str) -> None:
    pod = worker_pod(release)
    assert asked_by_the_head(release, pod) == ""
    change, reason = BEYOND_THE_TEMPLATES[what]
    for container in change.get("containers", []):
        # Restricted otherwise, so that the policy is what it meets.
        container["securityContext"] = pod["spec"]["containers"][0]["securityContext"]
    pod["spec"] |= {"containers": [plain(pod)], **change}
    assert reason in asked_by_the_head(release, pod)


def test_the_admission_policy_keeps_pods_off_the_node_where_the_namespace_does_not(
    release: Installed,
) -> None:
    pod = worker_pod(release)
    pod["spec"] |= {"containers": [plain(pod)], "hostNetwork": True}
    space = f"/api/v1/namespaces/{release.namespace}"
    mode = "pod-security.kubernetes.io/enforce"
    release.plane.patch(space, {"metadata": {"labels": {mode: "privileged"}}}, "merge-patch")
    try:
        assert "are not the node's" in asked_by_the_head(release, pod)
    finally:
        release.plane.patch(space, {"metadata": {"labels": {mode: "restricted"}}}, "merge-patch")


def plain(pod: Json) -> Json:
    """Its container without mounts, whose volumes may be others."""
    return {**pod["spec"]["containers"][0], "volumeMounts": []}


def test_uninstalled_only_etcds_volumes_are_left(kubelet: ImageKubelet, tmp_path: Path) -> None:
    release = made(kubelet, tmp_path / "release")
    assert release.install(VALUES).returncode == 0
    release.settle("mobula:1")
    done = release.helm("uninstall", "r", "--wait", "--timeout", "120s")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not release.pods("worker"), "the workers are collected", WAIT_S)
    names = release.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name")
    kinds = set(names.stdout.split()) - {"events", "events.events.k8s.io"}

    def left() -> set[str]:
        found = release.kubectl("get", ",".join(sorted(kinds)), "--output=name")
        return set(found.stdout.split())

    expected = {
        *(f"persistentvolumeclaim/state-rag-etcd-{number}" for number in range(3)),
        # Kubernetes' own, of every namespace.
        "configmap/kube-root-ca.crt",
        "serviceaccount/default",
    }
    wait_until(lambda: left() == expected or None, f"only {expected}", WAIT_S)
    wide = release.kubectl("get", WIDE, "--selector=app.kubernetes.io/instance=r", "--output=name")
    assert f"{release.namespace}-" not in wide.stdout, wide.stderr

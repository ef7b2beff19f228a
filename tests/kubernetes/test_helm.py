"""The chart's life: installed, tested, upgraded, rolled back and uninstalled by helm on a real API
server, with every role's real process in its pod, while requests go on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import addresses, image
from cluster.control_plane import ControlPlane
from cluster.image_kubelet import ImageKubelet
from cluster.installed import CHANGES, NAME, VALUES, Installed, upgrade_and_go_back
from cluster.release import WAIT_S, merged
from cluster.service_proxy import ServiceProxy
from conftest import LIVE
from support.waiting import wait_until

ETCD = "registry.k8s.io/etcd:3.6.4-0"


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageKubelet]:
    """A Kubernetes of its own, whose nodes run pods from images."""
    mark = uuid.uuid4().hex
    folder = tmp_path_factory.mktemp("helm")
    plane = ControlPlane(folder, mark)
    ours = image.mobula(tmp_path_factory.mktemp("image"))
    images = {
        "mobula:1": ours,
        "mobula:2": ours,
        ETCD: image.etcd(tmp_path_factory.mktemp("etcd-image")),
    }
    kubelet = ImageKubelet(plane, ["images-one", "images-two"], mark, images)
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


@pytest.mark.parametrize("what", CHANGES)
def test_an_upgrade_and_the_way_back_lose_no_request(release: Installed, what: str) -> None:
    upgrade_and_go_back(release, VALUES, what)


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

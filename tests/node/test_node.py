"""The chart on a real kubelet and containerd, from our image, in a namespace that takes only pods
of the restricted profile: installed, tested, changed, evicted, while requests go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import requests
from cluster.installed import CHANGES, NAME, VALUES, Installed, sleep_app, upgrade_and_go_back
from cluster.release import WAIT_S, merged
from machine.node import DISK, Node
from machine.reach import Port, reached
from support.config import Json
from support.waiting import wait_until

NAMESPACE = "chart"
# A model of the image, beside the application that the load goes to.
EMBEDDER: Json = {
    "name": "embedder",
    "route_prefix": "/",
    "import_path": "mobula.apps:embedder",
    "args": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    "deployments": [{"name": "Embedder", "ray_actor_options": {"num_cpus": 0.5}}],
}
TINY: Json = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
NODE_VALUES = merged(
    VALUES,
    {
        "serveConfig": {"applications": [EMBEDDER, sleep_app(2)]},
        "head": {
            "resources": TINY,
            "probes": {
                "liveness": {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 5}
            },
            "terminationGracePeriodSeconds": 5,
        },
        # The chart's own pause: kube-proxy takes a moment to send connections elsewhere.
        "router": {"resources": TINY, "preStopSeconds": 5},
        "etcd": {"resources": TINY},
        "workerDefaults": {
            "minReplicas": 2,
            "resources": TINY,
            "offers": {"cpus": 2},
            # The models are in the image.
            "cache": {"enabled": False},
        },
    },
)


@pytest.fixture(scope="module")
def release(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The chart, installed. Each test upgrades to what it needs."""
    for number in range(3):
        disk(node, DISK / f"etcd-{number}")
    service = f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}"
    folder = tmp_path_factory.mktemp("release")
    release = Installed(
        node.plane, NAMESPACE, folder, lambda: node.plane.get(service)["spec"]["clusterIP"]
    )
    done = release.install(NODE_VALUES)
    assert done.returncode == 0, done.stdout + done.stderr + release.described()
    return release


def disk(node: Node, folder: Path) -> None:
    """A volume of this node for whoever claims one; the group of the pod's user may write."""
    folder.mkdir()
    os.chown(folder, 10001, 10001)
    node.plane.done("POST", "/api/v1/persistentvolumes", {
        "metadata": {"name": folder.name},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(folder)},
        },
    })  # fmt: skip


def test_the_chart_is_installed_and_passes_its_own_test(release: Installed) -> None:
    assert release.upgrade(NODE_VALUES).returncode == 0
    release.settle("mobula:1")
    done = release.helm("test", "r", "--timeout", "120s")
    assert done.returncode == 0, done.stdout + done.stderr


INTERNAL = [
    Port("head", 6380), Port("head", 8265), Port("worker", 6381), Port("etcd", 2379),
    Port("etcd", 2380),
]  # fmt: skip
PUBLIC = [
    Port("router", 8000), Port("router", 9000), Port("router", 9102), Port("worker", 9102),
    Port("etcd", 2381),
]  # fmt: skip
PORTS = [*INTERNAL, *PUBLIC]
# What a pod with the labels of a role may connect to, and one with none.
MAY_REACH: dict[str | None, set[Port]] = {
    None: set(PUBLIC),
    "router": {Port("head", 6380), Port("worker", 6381)},
    "worker": {Port("head", 6380)},
    "head": {Port("head", 8265), Port("etcd", 2379)},
    "test": {Port("head", 8265)},
    "deploy": {Port("head", 8265)},
    "etcd": {Port("etcd", 2379), Port("etcd", 2380)},
}


def test_without_network_policies_a_stranger_reaches_every_port(release: Installed) -> None:
    open_values = merged(NODE_VALUES, {"networkPolicy": {"enabled": False}})
    assert release.upgrade(open_values).returncode == 0
    release.settle("mobula:1")
    assert reached(release, None, PORTS, set(PORTS)) == set(PORTS)


@pytest.mark.parametrize("source", MAY_REACH, ids=lambda source: source or "stranger")
def test_network_policies_let_each_role_reach_what_it_needs_and_nothing_else(
    release: Installed, source: str | None
) -> None:
    assert release.upgrade(NODE_VALUES).returncode == 0
    release.settle("mobula:1")
    # Among pods of one policy, this enforcer lets out what the policy lets in from everybody.
    ports = [port for port in PORTS if port.component != source or port in INTERNAL]
    assert reached(release, source, ports, MAY_REACH[source]) == MAY_REACH[source]


def test_a_model_of_the_image_answers_through_the_service(release: Installed) -> None:
    url = f"http://{release.address()}:8000/v1/embeddings"
    answer = requests.post(url, json={"input": "What is deep learning?"}, timeout=30)
    assert answer.ok, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 384


def test_a_pods_log_is_what_its_process_says(release: Installed) -> None:
    [pod, *_] = release.pods("router").values()
    done = release.kubectl("logs", pod["metadata"]["name"])
    assert "ingress open" in done.stdout, done.stderr


@pytest.mark.parametrize("what", CHANGES)
def test_an_upgrade_and_the_way_back_lose_no_request(release: Installed, what: str) -> None:
    upgrade_and_go_back(release, NODE_VALUES, what)


@pytest.mark.parametrize("component", ["worker", "router", "head"])
def test_the_eviction_of_each_pod_in_turn_loses_no_request(
    release: Installed, component: str
) -> None:
    assert release.upgrade(NODE_VALUES).returncode == 0
    release.settle("mobula:1")
    before = wait_until(lambda: two(release.pods(component)), f"two {component}s", WAIT_S)
    with release.load() as clients:
        clients.wait_for_more()
        for pod in before.values():
            wait_until(lambda: evicted(release, pod), "the budget allows it", WAIT_S)  # noqa: B023
        wait_until(
            lambda: not before.keys() & release.pods(component).keys(), "all are new", WAIT_S
        )
        release.settle("mobula:1")
        clients.wait_for_more()
    assert clients.failed() == []


def two(pods: dict[str, Json]) -> dict[str, Json] | None:
    """These pods, once those of before are gone."""
    return pods if len(pods) == 2 else None


def test_a_head_that_hangs_is_restarted_by_its_kubelet_and_no_request_is_lost(
    release: Installed,
) -> None:
    assert release.upgrade(NODE_VALUES).returncode == 0
    release.settle("mobula:1")
    [pod, *_] = wait_until(lambda: two(release.pods("head")), "two heads", WAIT_S).values()
    name = pod["metadata"]["name"]
    with release.load() as clients:
        clients.wait_for_more()
        os.kill(process_of(pod), signal.SIGSTOP)
        wait_until(lambda: restarts(release, name) == 1, f"{name} was restarted", WAIT_S)
        wait_until(lambda: release.ready(name), f"{name} is ready", WAIT_S)
        clients.wait_for_more()
    assert clients.failed() == []


def process_of(pod: Json) -> int:
    """The process of a pod's container, by the group that its kubelet put it into."""
    wanted = pod["metadata"]["uid"]
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "cgroup").read_text():
                if (entry / "comm").read_text().strip() == "mobula":
                    return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {pod['metadata']['name']}")


def restarts(release: Installed, name: str) -> int:
    status = release.plane.get(f"{release.core}/pods/{name}")["status"]
    return status["containerStatuses"][0]["restartCount"]


def evicted(release: Installed, pod: Json) -> bool:
    """Asks as `kubectl drain` does; no is the answer while the budget has no room."""
    name = pod["metadata"]["name"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "deleteOptions": {"preconditions": {"uid": pod["metadata"]["uid"]}},
    }
    answer = release.plane.call("POST", f"{release.core}/pods/{name}/eviction", body)
    assert answer.status_code in (201, 429), answer.text
    return answer.status_code == 201


def test_uninstalled_only_etcds_volumes_are_left(release: Installed) -> None:
    done = release.helm("uninstall", "r", "--wait", "--timeout", "120s")
    assert done.returncode == 0, done.stderr
    for component in ("head", "router", "worker", "etcd"):
        wait_until(lambda: not release.pods(component), f"no {component}", WAIT_S)  # noqa: B023
    assert len(release.listed("persistentvolumeclaims")) == 3

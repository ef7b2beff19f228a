"""Evictions, drains, a dead head, a dead API server, new templates: requests go on."""

from __future__ import annotations

import signal
import subprocess

from cluster.control_plane import fetched
from cluster.house import WAIT_S, House, group
from cluster.kubelet import NODES
from support.config import Json, app, deployment
from support.load import Load
from support.waiting import wait_until


def sleep(replicas: int) -> Json:
    """Answers after 50 ms, so that requests are always under way."""
    one = deployment("Sleep", num_cpus=1, num_replicas=replicas, user_config={"seconds": 0.05})
    return app("sleep", "sleep", "/sleep", one)


def test_the_only_pod_is_evicted_and_its_replacement_comes_first(house: House) -> None:
    house.start(group(min=1))
    house.deploy(sleep(2))
    house.wait_running("sleep")
    [old] = house.pods()
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        assert house.evict(old) == 201
        wait_until(lambda: list(house.pods()) not in ([], [old]), "a replacement", WAIT_S)
        wait_until(lambda: old not in house.pods(), "the evicted pod is gone", WAIT_S)
        load.wait_for_more()
    assert load.failed() == []
    assert len(house.pods()) == 1


def test_kubectl_drain_of_each_node_in_turn_loses_no_request(house: House) -> None:
    house.start(group(min=2))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    wait_until(lambda: house.budget("small") == 1, "the budget is set", WAIT_S)
    kubectl = [str(fetched("fetch_kubectl.sh")), "--kubeconfig", str(house.plane.kubeconfig)]
    before = set(house.pods())
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        for node in NODES:
            # No --force: the pods have a controller.
            drain = [*kubectl, "drain", node, "--timeout=90s"]
            done = subprocess.run(drain, capture_output=True, text=True, check=False)
            subprocess.run([*kubectl, "uncordon", node], capture_output=True, check=True)
            assert done.returncode == 0, done.stderr
        load.wait_for_more()
    assert load.failed() == []
    assert before.isdisjoint(house.wait_pods(2)), "every pod was on one of the nodes"


def test_a_cordoned_node_is_left_before_anything_is_evicted(house: House) -> None:
    house.start(group(min=1, max=1))
    house.deploy(sleep(2))
    house.wait_running("sleep")
    [(old, pod)] = house.pods().items()
    node = f"/api/v1/nodes/{pod['spec']['nodeName']}"
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        house.plane.patch(node, {"spec": {"unschedulable": True}})
        try:
            wait_until(lambda: old not in house.pods(), "the pod is gone", WAIT_S)
        finally:
            house.plane.patch(node, {"spec": {"unschedulable": False}})
        load.wait_for_more()
    assert load.failed() == []
    [new] = house.wait_pods(1).values()
    assert new["spec"]["nodeName"] != pod["spec"]["nodeName"]


def test_a_dead_api_server_stops_no_request_and_pods_are_made_again_when_it_is_back(
    house: House,
) -> None:
    house.start(group(min=1))
    house.deploy(sleep(2))
    house.wait_running("sleep")
    before = set(house.pods())
    with Load(house.http_port, "/sleep") as load:
        house.plane.kill_apiserver()
        try:
            house.deploy(sleep(4))
            wait_until(
                lambda: "Kubernetes:" in house.message("sleep", "Sleep"), "it is told", WAIT_S
            )
            load.wait_for_more(100)
        finally:
            house.plane.start_apiserver()
        house.wait_running("sleep")
        load.wait_for_more()
    assert load.failed() == []
    assert before < set(house.pods()), "the pods of before are still there, and one more"


def test_a_head_that_comes_back_adopts_the_pods_of_before(house: House) -> None:
    groups = group(min=1, idle_timeout_s=1)
    house.start(groups)
    house.deploy(sleep(4))
    house.wait_running("sleep")
    before = house.pods()
    assert len(before) == 2
    with Load(house.http_port, "/sleep") as load:
        house.stop_head(signal.SIGKILL)
        load.wait_for_more()
        house.start_head(groups)
        house.wait_running("sleep")
        load.wait_for_more()
        uids = lambda pods: {pod["metadata"]["uid"] for pod in pods.values()}  # noqa: E731
        assert uids(house.pods()) == uids(before)
        house.deploy(sleep(1))
        house.wait_pods(1)
        assert uids(house.pods()) < uids(before), "and takes them away like its own"
    assert load.failed() == []

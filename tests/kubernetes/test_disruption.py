"""Evictions, drains, a dead head, a dead API server, new templates: requests go on."""

from __future__ import annotations

import signal
import subprocess
import time

from cluster.control_plane import fetched
from cluster.house import WAIT_S, House, group, sleep, template
from cluster.kubelet import NODES
from support.load import Load
from support.waiting import wait_until

OUTAGE_S = 20.0


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
    house.lost_nothing(load)
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
    house.lost_nothing(load)
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
    house.lost_nothing(load)
    [new] = house.wait_pods(1).values()
    assert new["spec"]["nodeName"] != pod["spec"]["nodeName"]


def test_an_api_server_that_is_dead_for_20_s_stops_no_request_and_scaling_waits_for_it(
    house: House,
) -> None:
    house.start(group(min=1))
    house.deploy(sleep(2))
    house.wait_running("sleep")
    before = set(house.pods())
    with Load(house.http_port, "/sleep") as load:
        died_at = time.monotonic()
        house.plane.kill_apiserver()
        try:
            house.deploy(sleep(4))
            wait_until(
                lambda: "Kubernetes:" in house.message("sleep", "Sleep"), "it is told", WAIT_S
            )
            wait_until(lambda: time.monotonic() - died_at > OUTAGE_S, "the outage", WAIT_S)
            load.wait_for_more(100)
        finally:
            house.plane.start_apiserver()
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert before < set(house.pods()), "the pods of before are still there, and one more"


def test_a_pod_that_is_killed_loses_no_request_and_comes_back(house: House) -> None:
    house.start(group(min=2, max=2))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    pods = set(house.wait_pods(2))
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        assert house.kubelet.kill_9(min(pods))
        wait_until(lambda: house.restarts(min(pods)) == 1, "it was started again", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert set(house.pods()) == pods


def test_pods_that_are_deleted_by_hand_are_made_up_for(house: House) -> None:
    house.start(group(min=2, max=4))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    [politely, by_force] = house.wait_pods(2)
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        house.delete_pod(politely)
        wait_until(lambda: politely not in house.pods(), "the first one is gone", WAIT_S)
        house.wait_running("sleep")
        house.delete_pod(by_force, gracePeriodSeconds=0)
        wait_until(lambda: by_force not in house.pods(), "the second one is gone", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    assert load.failed() == []
    assert {politely, by_force}.isdisjoint(house.wait_pods(2))
    wait_until(lambda: not house.orphans(), "no orphan", WAIT_S)


def test_a_pod_that_is_preempted_is_left_and_comes_back_when_there_is_room(house: House) -> None:
    greedy = template(resources={"requests": {"cpu": "50"}})
    house.start(group(min=2, max=2, template=greedy))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    before = set(house.wait_pods(2))
    with Load(house.http_port, "/sleep") as load:
        with house.more_important_pod(cpu="50"):
            wait_until(lambda: not before <= set(house.pods()), "one is preempted", WAIT_S)
            load.wait_for_more()
            assert len(before & set(house.pods())) == 1
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert len(house.pods()) == 2


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
    house.lost_nothing(load)


def test_the_next_head_takes_the_pods_over_when_the_leading_one_is_killed(big_house: House) -> None:
    house = big_house
    groups = group(min=1, idle_timeout_s=1)
    house.start(groups)
    house.deploy(sleep(4))
    house.wait_running("sleep")
    before = set(house.wait_pods(2))
    with Load(house.http_port, "/sleep") as load:
        first = house.leader()
        house.stop_head(signal.SIGKILL, first)
        second = house.leader()
        assert second is not first
        house.wait_running("sleep")
        load.wait_for_more()
        assert set(house.pods()) == before, "none was made twice, none was taken away"
        house.start_head(groups, head=first)
        house.deploy(sleep(6))
        house.wait_running("sleep")
        assert before < set(house.wait_pods(3))
        house.deploy(sleep(1))
        house.wait_pods(1)
        load.wait_for_more()
    house.lost_nothing(load)

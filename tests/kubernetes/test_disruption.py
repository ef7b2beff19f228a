"""Evictions, drains, a dead head, a dead API server, new templates: requests go on."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from cluster.control_plane import fetched
from cluster.house import WAIT_S, House, group, sleep, template
from cluster.kubelet import NODES
from support.load import Load
from support.waiting import wait_until

OUTAGE_S = 20.0


def test_kubectl_drain_of_each_node_in_turn_loses_no_request(house: House) -> None:
    house.start(group(min=2))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    wait_until(lambda: house.budget("small") == 1, "the budget is set", WAIT_S)
    kubectl = [
        str(fetched("fetch_client.sh", "kubectl")),
        "--kubeconfig",
        str(house.plane.kubeconfig),
    ]
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


# The scheduler's and the controllers' own pauses grow while it is dead.
@pytest.mark.timeout(300)
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
        house.wait_running("sleep", timeout_s=2 * WAIT_S)
        load.wait_for_more()
    house.lost_nothing(load)
    assert before < set(house.pods()), "the pods of before are still there, and one more"


def test_a_pod_that_is_deleted_by_force_loses_no_request(house: House) -> None:
    house.start(group(min=2, max=4))
    house.deploy(sleep(4))
    house.wait_running("sleep")
    gone = min(house.wait_pods(2))
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        house.delete_pod(gone, gracePeriodSeconds=0)
        wait_until(lambda: gone not in house.pods(), "it is gone", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert gone not in house.wait_pods(2)


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

"""Pods come when replicas find no room, and go when nobody needs them."""

from __future__ import annotations

from cluster.house import CLUSTER, WAIT_S, House, group, sleep, template
from support.config import Json, app, deployment
from support.load import Load
from support.waiting import wait_until


def noop(replicas: int) -> Json:
    one = deployment("Noop", num_cpus=1, num_replicas=replicas)
    return app("noop", "noop", "/noop", one)


def test_replicas_without_room_get_pods_and_idle_pods_go(house: House) -> None:
    house.start(group(idle_timeout_s=1))
    assert house.pods() == {}
    house.deploy(noop(3))
    house.wait_running("noop")
    pods = house.pods()
    assert len(pods) == 2, "two replicas share a pod of two CPUs"
    for pod in pods.values():
        assert pod["metadata"]["labels"]["mobula.dev/group"] == "small"
        [owner] = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("ConfigMap", f"{CLUSTER}-cluster")
    wait_until(lambda: house.budget("small") == 1, "a budget of all pods but one", WAIT_S)
    house.deploy(noop(1))
    house.wait_pods(1)
    house.wait_running("noop")
    wait_until(lambda: house.budget("small") is None, "one pod alone has no budget", WAIT_S)
    house.deploy()
    house.wait_pods(0)


def test_load_makes_eight_pods_of_one_and_one_of_eight(house: House) -> None:
    house.start(group(min=1, max=8, idle_timeout_s=1, resources={"cpus": 1}))
    scale = {
        "min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 1,
        "upscale_delay_s": 0.5, "downscale_delay_s": 1, "look_back_period_s": 1,
        "metrics_interval_s": 0.2,
    }  # fmt: skip
    one = deployment("Sleep", num_cpus=1, user_config={"seconds": 0.05}, autoscaling_config=scale)
    house.deploy(app("sleep", "sleep", "/sleep", one))
    house.wait_running("sleep")
    with Load(house.http_port, "/sleep", clients=1) as few:
        few.wait_for_more()
        house.wait_pods(1)
        with Load(house.http_port, "/sleep", clients=12) as many:
            wait_until(lambda: len(house.pods()) == 8, "eight pods", WAIT_S)
            wait_until(lambda: house.replicas("sleep", "Sleep") == 8, "eight replicas", WAIT_S)
            many.wait_for_more(200)
        house.wait_pods(1)
        few.wait_for_more()
    house.lost_nothing(few)
    house.lost_nothing(many)


def test_a_group_whose_pods_find_no_node_passes_the_demand_on(house: House) -> None:
    nowhere = template(nodeSelector={"kubernetes.io/hostname": "no-such-node"})
    house.start(group("first", priority=1, template=nowhere), group("second"))
    house.deploy(sleep(2))
    house.wait_running("sleep")
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        # What waited for a node is not needed any more.
        [pod] = house.wait_pods(1).values()
        load.wait_for_more()
    assert pod["metadata"]["labels"]["mobula.dev/group"] == "second"
    house.lost_nothing(load)


def test_headroom_is_there_before_it_is_needed_and_again_after(house: House) -> None:
    house.start(group(headroom=1))
    house.wait_pods(1)
    house.deploy(sleep(2))
    house.wait_running("sleep")
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        before = set(house.wait_pods(2))
        house.deploy(sleep(4))
        house.wait_running("sleep")
        assert before < set(house.wait_pods(3))
        load.wait_for_more()
    house.lost_nothing(load)


def test_the_pods_of_a_cluster_go_with_its_owner(house: House) -> None:
    house.start(group(min=1))
    house.wait_pods(1)
    house.stop_head()
    house.stop()
    house.wait_pods(0)

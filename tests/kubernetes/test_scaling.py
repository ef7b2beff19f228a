"""Pods come when replicas find no room, and go when nobody needs them."""

from __future__ import annotations

from cluster.house import CLUSTER, WAIT_S, House, group
from support.config import Json, app, deployment
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


def test_a_refusal_by_quota_is_shown_and_over_when_the_quota_is_raised(house: House) -> None:
    quotas = f"/api/v1/namespaces/{house.namespace}/resourcequotas"
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    house.plane.done("POST", quotas, quota)
    counted = lambda: house.plane.get(f"{quotas}/q").get("status", {}).get("hard")  # noqa: E731
    wait_until(counted, "the quota is in force", WAIT_S)
    house.start(group())
    house.deploy(noop(3))
    wait_until(
        lambda: "exceeded quota" in house.message("noop", "Noop"), "the refusal is shown", WAIT_S
    )
    assert len(house.pods()) == 1
    events = f"/apis/events.k8s.io/v1/namespaces/{house.namespace}/events"
    notes = [event.get("note", "") for event in house.plane.get(events)["items"]]
    assert any("exceeded quota" in note for note in notes), notes
    house.plane.patch(f"{quotas}/q", {"spec": {"hard": {"pods": "9"}}}, "merge-patch")
    house.wait_running("noop")
    assert len(house.pods()) == 2


def test_the_pods_of_a_cluster_go_with_its_owner(house: House) -> None:
    house.start(group(min=1))
    house.wait_pods(1)
    house.stop_head()
    house.stop()
    house.wait_pods(0)

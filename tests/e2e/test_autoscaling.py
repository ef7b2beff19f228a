"""Replicas follow the load: up, down, to none and back, and no request is lost on the way."""

from __future__ import annotations

import pytest
import requests
from conftest import NewServer
from support.config import Json, sleep
from support.exposition import total
from support.load import Load
from support.server import Server
from support.waiting import wait_until

QUICK: Json = {
    "min_replicas": 1,
    "max_replicas": 8,
    "target_ongoing_requests": 2,
    "look_back_period_s": 0.5,
    "upscale_delay_s": 0.5,
    "downscale_delay_s": 0.5,
}


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    made = new_module_server(workers=2)
    return made.start(made.config([slow()]))


def slow(**autoscaling: object) -> Json:
    return sleep("slow", "/slow", 0.1, autoscaling_config={**QUICK, **autoscaling})


def details(server: Server) -> Json:
    return server.document()["applications"]["slow"]["deployments"]["Sleep"]


def running(server: Server) -> int:
    return len(server.replicas("slow", "Sleep"))


def wait_running(server: Server, count: int) -> None:
    wait_until(lambda: running(server) == count, f"{count} replicas run")


def test_ten_times_the_load_brings_the_replicas_it_needs_and_takes_them_away_again(
    server: Server,
) -> None:
    server.deploy(server.config([slow()]))
    assert running(server) == 1
    with Load(server.http_port, "/slow", clients=10) as load:
        wait_running(server, 5)
        document = server.document()["applications"]["slow"]
        assert document["status"] == "RUNNING"
        wait_until(lambda: details(server)["status"] == "HEALTHY", "it is healthy")
        assert details(server)["status_trigger"] == "UPSCALE_COMPLETED"
        assert details(server)["target_num_replicas"] == 5
        load.wait_for_more(50)
    assert load.failed() == []
    wait_running(server, 1)
    wait_until(lambda: details(server)["status"] == "HEALTHY", "it is healthy")
    assert details(server)["status_trigger"] == "DOWNSCALE_COMPLETED"


def test_a_deployment_without_load_has_no_replica_and_the_first_request_waits_for_one(
    server: Server,
) -> None:
    server.deploy(server.config([slow(min_replicas=0, initial_replicas=0)]))
    for _ in range(3):
        wait_running(server, 0)
        document = server.document()["applications"]["slow"]
        assert document["status"] == "RUNNING"
        answer = requests.get(f"http://127.0.0.1:{server.http_port}/slow", timeout=30)
        assert answer.status_code == 200, answer.text


def test_the_load_that_counts_is_in_the_metrics(server: Server) -> None:
    server.deploy(server.config([slow()]))

    def value(name: str) -> float:
        return total(
            server.metrics(),
            f"ray_serve_autoscaling_{name}",
            application="slow",
            deployment="Sleep",
        )

    with Load(server.http_port, "/slow", clients=8):
        wait_until(
            lambda: value("desired_replicas") >= 4,
            "the load asks for four replicas",
        )
        assert value("target_ongoing_requests") == 2
        assert value("total_requests") > 6


def test_a_count_in_the_config_ends_autoscaling(server: Server) -> None:
    server.deploy(server.config([slow(min_replicas=3)]))
    wait_running(server, 3)
    server.deploy(server.config([sleep("slow", "/slow", 0.1, num_replicas=2)]))
    with Load(server.http_port, "/slow", clients=10) as load:
        wait_running(server, 2)
        load.wait_for_more(100)
        assert running(server) == 2
    assert load.failed() == []


def test_target_capacity_scales_the_bounds_and_null_brings_them_back(server: Server) -> None:
    config = server.config([slow(min_replicas=4, max_replicas=8)])
    server.deploy(config)
    wait_running(server, 4)
    server.deploy({**config, "target_capacity": 50})
    wait_running(server, 2)
    assert server.document()["target_capacity"] == 50
    server.deploy({**config, "target_capacity": 0})
    wait_running(server, 0)
    server.deploy(config)
    wait_running(server, 4)


def test_the_reactive_policy_sizes_by_arrivals_and_service_time(server: Server) -> None:
    reactive = {"autoscaling": {"policy": "reactive"}}
    server.deploy(server.config([{**slow(), "deployments": [_entry(mobula=reactive)]}]))
    wait_running(server, 1)
    # Each of ten clients has a request in progress all the time, a replica is to have two.
    with Load(server.http_port, "/slow", clients=10) as load:
        wait_until(lambda: running(server) >= 5, "the replicas that it needs")
        load.wait_for_more(50)
    assert load.failed() == []
    wait_running(server, 1)


def test_the_budget_of_an_application_bounds_what_its_load_brings(server: Server) -> None:
    budget = {"autoscaling": {"max_replicas": 3, "priorities": {"Sleep": 1}}}
    server.deploy(server.config([{**slow(), "mobula": budget}]))
    with Load(server.http_port, "/slow", clients=10) as load:
        wait_running(server, 3)
        load.wait_for_more(100)
        assert details(server)["target_num_replicas"] == 3
        # More is allowed, and what was wanted all the time comes.
        server.deploy(server.config([slow()]))
        wait_running(server, 5)
    assert load.failed() == []


def _entry(**fields: object) -> Json:
    (entry,) = slow()["deployments"]
    return {**entry, **fields}

"""New versions that get a part of the requests first, with real processes under load."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from conftest import NewServer
from support.config import Json, sleep
from support.load import Load
from support.server import Server
from support.waiting import wait_until

TRAFFIC = {"steps": [20, 50], "step_s": 1, "error_rate_max": 0.05, "requests_min": 50}


def version(number: int, failure_rate: float = 0.0, **traffic: Any) -> Json:
    """A version of `one`; another number is another code version."""
    return {
        **sleep("one", "/one", 0.001, num_replicas=2),
        "args": {"failure_rate": failure_rate},
        "runtime_env": {"env_vars": {"VERSION": str(number)}},
        "mobula": {"traffic": {**TRAFFIC, **traffic}},
    }


@pytest.fixture
def server(new_server: NewServer) -> Server:
    made = new_server()
    made.start(made.config([version(1)]))
    made.wait_app("one", "RUNNING")
    return made


def found(server: Server) -> Json:
    """The deployment of `one`."""
    deployment: Json = server.document()["applications"]["one"]["deployments"]["Sleep"]
    return deployment


def ids(server: Server) -> set[str]:
    """Every replica, in whatever state: one that is gone is in no router's table any more."""
    return {replica["replica_id"] for replica in found(server)["replicas"]}


def put(server: Server, application: Json) -> None:
    answer = server.put(server.config([application]))
    assert answer.status_code == 200, answer.text


def wait_message(server: Server, text: str) -> None:
    wait_until(lambda: text in found(server)["message"], f"the message '{text}'", 60)


def test_a_good_version_is_promoted_step_by_step_and_no_request_fails(server: Server) -> None:
    before = ids(server)
    with Load(server.http_port, "/one") as load:
        load.wait_for_more(50)
        put(server, version(2))
        wait_message(server, "canary: step 1 of 2, 20 % of the requests")
        assert before <= ids(server)
        wait_message(server, "canary: step 2 of 2, 50 % of the requests")
        assert before <= ids(server)
        wait_until(
            lambda: found(server)["status"] == "HEALTHY" and not ids(server) & before,
            "the new version everywhere",
            60,
        )
        load.wait_for_more(50)
    assert load.failed() == []
    assert len(ids(server)) == 2
    assert found(server)["message"] == ""
    server.wait_app("one", "RUNNING")


def test_a_version_that_fails_is_taken_back_while_the_old_one_serves(server: Server) -> None:
    before = ids(server)
    with Load(server.http_port, "/one") as load:
        load.wait_for_more(50)
        put(server, version(2, failure_rate=0.5))
        application = server.wait_app("one", "DEPLOY_FAILED", 60)
        wait_until(lambda: ids(server) == before, "only the old replicas")
        taken_back_at = time.monotonic()
        load.wait_for_more(100)
    assert "requests failed at 20 %, allowed 5 %" in application["message"]
    assert application["message"].endswith("rolled back to revision 1, which is serving")
    failed = load.failed()
    assert {outcome.status for outcome in failed} == {500}
    assert [outcome for outcome in failed if outcome.sent_at >= taken_back_at] == []
    wait_until(lambda: found(server)["status"] == "HEALTHY", "the old version")


def test_a_head_that_was_killed_goes_on_and_the_old_config_ends_the_canary(server: Server) -> None:
    put(server, version(2, step_s=3600))
    wait_message(server, "canary: step 1 of 2, 20 % of the requests")
    server.signal(signal.SIGKILL)
    server.wait_exit()
    server.start()
    wait_message(server, "canary: step 1 of 2, 20 % of the requests")
    wait_until(
        lambda: len(server.replicas("one", "Sleep")) == 3, "two old replicas and a new one", 60
    )
    put(server, version(1))
    wait_until(
        lambda: found(server)["status"] == "HEALTHY" and len(ids(server)) == 2,
        "the old version alone",
        60,
    )
    assert found(server)["message"] == ""
    server.wait_app("one", "RUNNING")

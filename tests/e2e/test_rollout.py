"""Changes under load drop nothing, and a change that fails leaves the old version in service."""

from __future__ import annotations

import pytest
import requests
from conftest import NewServer
from support.config import Json, deployment, noop, sleep
from support.load import Load
from support.server import Server
from support.waiting import wait_until


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    made = new_module_server(workers=2)
    return made.start(made.config([noop()]))


def with_environment(entry: Json, **env_vars: str) -> Json:
    """Another environment is another code version: every replica is replaced."""
    return {**entry, "runtime_env": {"env_vars": env_vars}}


def ids(server: Server, application: str, name: str) -> set[str]:
    return {replica["replica_id"] for replica in server.replicas(application, name)}


def wait_replaced(server: Server, before: set[str]) -> None:
    """Waits until no-op replicas run and none of them is an old one."""

    def replaced() -> bool:
        now = ids(server, "noop", "Noop")
        return bool(now) and not now & before

    wait_until(replaced, "another replica")


def wait_count(server: Server, count: int) -> set[str]:
    """Waits until so many sleep replicas run; their ids."""

    def reached() -> set[str]:
        now = ids(server, "slow", "Sleep")
        return now if len(now) == count else set()

    return wait_until(reached, f"{count} replicas")


def test_a_single_replica_is_replaced_without_a_gap(server: Server) -> None:
    server.deploy(server.config([noop()]))
    with Load(server.http_port, "/noop") as load:
        for round_number in range(5):
            before = ids(server, "noop", "Noop")
            changed = with_environment(noop(), REVISION=str(round_number))
            assert server.put(server.config([changed])).status_code == 200
            wait_replaced(server, before)
            load.wait_for_more()
    assert load.failed() == []


def test_the_number_of_replicas_changes_under_load(server: Server) -> None:
    server.deploy(server.config([sleep("slow", "/slow", 0.02), noop()]))
    with Load(server.http_port, "/slow", clients=8) as load:
        for count in (4, 1, 3, 2):
            resized = sleep("slow", "/slow", 0.02, num_replicas=count)
            before = ids(server, "slow", "Sleep")
            assert server.put(server.config([resized, noop()])).status_code == 200
            after = wait_count(server, count)
            assert before <= after or after <= before, "no replica is replaced"
            load.wait_for_more()
    assert load.failed() == []


def test_an_application_that_goes_away_answers_200_or_404_and_nothing_else(server: Server) -> None:
    server.deploy(server.config([sleep("slow", "/slow", 0.05, max_ongoing_requests=16), noop()]))
    with Load(server.http_port, "/slow", clients=8) as load:
        load.wait_for_more(16)
        server.deploy(server.config([noop()]))
        wait_until(lambda: any(o.status == 404 for o in load.outcomes), "it is gone")
    assert {outcome.status for outcome in load.outcomes} == {200, 404}


def test_a_change_that_cannot_start_leaves_the_old_version_in_service(server: Server) -> None:
    embedder: Json = {
        "name": "embedder",
        "route_prefix": "/embedder",
        "import_path": "mobula.apps:embedder",
        "deployments": [deployment("Embedder")],
    }
    body = {"inputs": "x"}
    server.deploy(server.config([noop(), embedder]))
    before = ids(server, "embedder", "Embedder")

    broken = with_environment(embedder, EMBEDDER_ONNX_PATH="/no/such/model.onnx")
    assert server.put(server.config([noop(), broken])).status_code == 200
    server.wait_app("embedder", "DEPLOY_FAILED", 60)
    assert ids(server, "embedder", "Embedder") == before
    answer = requests.post(f"{server.url}/embedder/embed", json=body, timeout=30)
    assert answer.status_code == 200, answer.text

    server.deploy(server.config([noop(), embedder]))
    assert requests.post(f"{server.url}/embedder/embed", json=body, timeout=30).status_code == 200
    server.deploy(server.config([noop()]))


def test_what_does_not_fit_waits_and_says_so(server: Server) -> None:
    large = noop("large", "/large")
    large["deployments"] = [deployment("Noop", num_cpus=1000)]
    assert server.put(server.config([noop(), large])).status_code == 200
    waiting = server.wait_app("large", "DEPLOYING")
    told = wait_until(
        lambda: server.document()["applications"]["large"]["deployments"]["Noop"]["message"],
        "a reason",
    )
    assert "1000" in told and "CPU" in told
    assert waiting["status"] == "DEPLOYING"
    assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 503
    assert requests.get(f"{server.url}/noop", timeout=10).status_code == 200
    server.deploy(server.config([noop()]))
    server.wait_healthy()

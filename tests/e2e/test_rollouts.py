"""Changes of the config that go wrong, go back, or touch one application only."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import NewServer
from support.config import Json, noop, sleep
from support.load import Load
from support.server import Server, binary
from support.waiting import wait_until


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    server = new_module_server()
    return server.start(server.config([sleep("one", "/one", 0.001), noop("two", "/two")]))


@pytest.fixture
def mobula(server: Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [binary(), *arguments, "-a", server.admin]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


def written(tmp_path: Path, config: Json) -> str:
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def failing() -> Json:
    """A new version of `one` that does not start."""
    entry = sleep("one", "/one", 0.001)
    entry["deployments"][0]["user_config"] = {"seconds": "never"}
    return {**entry, "runtime_env": {"env_vars": {"VERSION": "2"}}}


def test_a_version_that_does_not_start_is_taken_back_and_no_request_is_lost(
    server: Server, mobula: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    with Load(server.http_port, "/one") as load:
        load.wait_for_more(50)
        assert server.put(server.config([failing(), noop("two", "/two")])).status_code == 200
        found = server.wait_app("one", "DEPLOY_FAILED")
        load.wait_for_more(50)
    assert load.failed() == []
    assert found["message"].endswith("rolled back to revision 1, which is serving")
    wait_until(
        lambda: server.document()["applications"]["one"]["deployments"]["Sleep"]["status"]
        == "HEALTHY",
        "the version of before",
    )
    listed = mobula("history")
    assert listed.returncode == 0, listed.stderr
    assert "rolled_back" in listed.stdout and "rolled back to revision 1" in listed.stdout


def test_settings_that_a_replica_cannot_take_cost_one_wave_and_are_taken_back(
    server: Server,
) -> None:
    good = sleep("one", "/one", 0.001, num_replicas=3)
    server.deploy(server.config([good, noop("two", "/two")]))
    bad = sleep("one", "/one", 0.001, num_replicas=3)
    bad["deployments"][0]["user_config"] = {"seconds": "never"}
    with Load(server.http_port, "/one") as load:
        load.wait_for_more(50)
        assert server.put(server.config([bad, noop("two", "/two")])).status_code == 200
        wait_until(
            lambda: "rolled back to" in server.document()["applications"]["one"]["message"],
            "the rollback",
            60,
        )
        load.wait_for_more(50)
    assert [outcome for outcome in load.outcomes if outcome.status == 503] == []
    wait_until(lambda: len(server.replicas("one", "Sleep")) == 3, "three replicas")


def test_one_application_is_planned_deployed_and_deleted(
    server: Server,
    mobula: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    before = server.document()["applications"]["two"]
    config = server.config([sleep("one", "/one", 0.002, num_replicas=3), noop("two", "/two")])
    planned = mobula("plan", written(tmp_path, config))
    assert planned.returncode == 0, planned.stderr
    assert "replicas are told, and keep running (user_config.seconds)" in planned.stdout
    assert "two: nothing" in planned.stdout

    old = mobula("deploy", "--app", "one", "--revision", "2", written(tmp_path, config))
    assert old.returncode != 0 and "412" in old.stderr
    done = mobula("deploy", "--app", "one", written(tmp_path, config))
    assert done.returncode == 0, done.stderr
    server.wait_app("one", "RUNNING")
    assert server.document()["applications"]["two"] == before

    back = mobula("rollback", "--revision", "1")
    assert back.returncode == 0, back.stderr
    found = server.wait_app("one", "RUNNING")
    settings = found["deployed_app_config"]["deployments"][0]["user_config"]
    assert settings == {"seconds": 0.001}

    gone = mobula("delete", "one")
    assert gone.returncode == 0, gone.stderr
    wait_until(lambda: "one" not in server.document()["applications"], "one is gone")
    assert mobula("delete", "one").returncode != 0

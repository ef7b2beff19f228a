"""Ray's own `serve` command, unmodified, against the admin API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from conftest import NewServer
from support.config import Json, deployment, noop, sleep
from support.server import Server
from support.waiting import wait_until

SERVE = Path(sys.executable).with_name("serve")
COMMAND_SECONDS_MAX = 60  # importing ray takes seconds on a busy machine


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    return new_module_server().start()


def serve(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RAY_DASHBOARD_ADDRESS": server.admin, "NO_COLOR": "1"}
    return subprocess.run(
        [str(SERVE), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
    )


def deploy(
    server: Server, tmp_path: Path, applications: list[Json]
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(server.config(applications), sort_keys=False))
    return serve(server, "deploy", str(path))


def printed(done: subprocess.CompletedProcess[str]) -> Json:
    assert done.returncode == 0, done.stdout + done.stderr
    return yaml.safe_load(done.stdout)


def test_nothing_is_deployed_at_first(server: Server) -> None:
    done = serve(server, "config")
    assert "No configuration was found." in done.stdout + done.stderr


def test_deploy_then_status_and_config_print_rays_yaml(server: Server, tmp_path: Path) -> None:
    applications = [noop("one", "/one"), sleep("two", "/two", 0.01, num_replicas=2)]
    done = deploy(server, tmp_path, applications)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Sent deploy request successfully." in done.stdout + done.stderr
    server.wait_app("one", "RUNNING")
    server.wait_app("two", "RUNNING")

    status = printed(serve(server, "status"))
    assert list(status) == ["proxies", "applications", "target_capacity"]
    assert list(status["proxies"].values()) == ["HEALTHY"]
    assert status["target_capacity"] is None
    two = status["applications"]["two"]
    assert (two["status"], two["message"]) == ("RUNNING", "")
    assert two["last_deployed_time_s"] > 0
    assert two["deployments"]["Sleep"] == {
        "status": "HEALTHY",
        "status_trigger": "CONFIG_UPDATE_COMPLETED",
        "replica_states": {"RUNNING": 2},
        "message": "",
    }

    config = serve(server, "config")
    assert config.returncode == 0, config.stderr
    documents = list(yaml.safe_load_all(config.stdout))
    assert [entry["name"] for entry in documents] == ["one", "two"]
    for entry, sent in zip(documents, applications, strict=True):
        assert {key: entry[key] for key in sent} == sent


def test_one_application_can_be_asked_for(server: Server) -> None:
    assert printed(serve(server, "status", "-n", "one"))["status"] == "RUNNING"
    assert printed(serve(server, "config", "-n", "two"))["import_path"] == "mobula.apps:sleep"
    nobody = serve(server, "status", "-n", "nobody")
    assert 'Application "nobody" does not exist.' in nobody.stdout + nobody.stderr


def test_a_refused_config_changes_nothing(server: Server, tmp_path: Path) -> None:
    before = server.document()["applications"]
    wrong = noop("one", "/one")
    wrong["deployments"] = [deployment("Noop", max_ongoing_requests=0)]
    # The CLI checks with Ray's own schema first, so this one does not even leave the client.
    assert deploy(server, tmp_path, [wrong]).returncode != 0
    # This one does: Ray's schema takes any import path of the right shape.
    foreign = {**noop("one", "/one"), "import_path": "somebodys.python:app"}
    done = deploy(server, tmp_path, [foreign])
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "400" in said and "somebodys.python:app" in said and "mobula.apps:noop" in said
    assert server.document()["applications"] == before


def test_redeploying_the_same_config_replaces_no_replica(server: Server, tmp_path: Path) -> None:
    def ids() -> set:
        return {replica["replica_id"] for replica in server.replicas("two", "Sleep")}

    before, stamp = ids(), server.document()["applications"]["two"]["last_deployed_time_s"]
    done = deploy(
        server, tmp_path, [noop("one", "/one"), sleep("two", "/two", 0.01, num_replicas=2)]
    )
    assert done.returncode == 0, done.stderr
    wait_until(
        lambda: server.document()["applications"]["two"]["last_deployed_time_s"] > stamp,
        "the new time stamp",
    )
    server.wait_app("two", "RUNNING")
    assert ids() == before


def test_an_application_that_is_left_out_is_deleted(server: Server, tmp_path: Path) -> None:
    assert deploy(server, tmp_path, [noop("one", "/one")]).returncode == 0
    wait_until(lambda: list(server.document()["applications"]) == ["one"], "two is gone")
    assert requests.get(f"{server.url}/two", timeout=10).status_code == 404
    assert requests.get(f"{server.url}/one", timeout=10).status_code == 200
    assert list(printed(serve(server, "status"))["applications"]) == ["one"]


def test_a_deployment_that_cannot_start_shows_deploy_failed(server: Server, tmp_path: Path) -> None:
    broken: Json = {
        "name": "broken",
        "route_prefix": "/broken",
        "import_path": "mobula.apps:embedder",
        "runtime_env": {"env_vars": {"EMBEDDER_ONNX_PATH": "/no/such/model.onnx"}},
        "deployments": [deployment("Embedder")],
    }
    assert deploy(server, tmp_path, [noop("one", "/one"), broken]).returncode == 0
    server.wait_app("broken", "DEPLOY_FAILED", 60)
    status = printed(serve(server, "status"))["applications"]
    failed = status["broken"]["deployments"]["Embedder"]
    assert status["broken"]["status"] == "DEPLOY_FAILED"
    assert failed["status"] == "DEPLOY_FAILED"
    assert failed["status_trigger"] == "REPLICA_STARTUP_FAILED"
    assert failed["message"].startswith("The deployment failed to start 3 times in a row")
    assert "/no/such" in failed["message"]
    assert status["one"]["status"] == "RUNNING"

    refused = requests.get(f"{server.url}/broken", timeout=10)
    assert refused.status_code == 503
    assert refused.text == (
        "Deployment(name='Embedder', app='broken') is unavailable because it failed to deploy."
    )


def test_a_late_error_is_told_as_ray_tells_it(server: Server, tmp_path: Path) -> None:
    unknown = noop("late", "/late")
    unknown["deployments"] = [deployment("Nobody")]
    assert deploy(server, tmp_path, [noop("one", "/one"), unknown]).returncode == 0
    found = server.wait_app("late", "DEPLOY_FAILED")
    assert "Deployment 'Nobody' does not exist. Available: ['Noop']" in found["message"]


def test_shutdown_removes_everything(server: Server) -> None:
    assert serve(server, "shutdown", "-y").returncode == 0
    wait_until(
        lambda: (
            server.document()
            == {"controller_info": {}, "proxies": {}, "applications": {}, "target_capacity": None}
        ),
        "the document of an instance that does not run",
    )
    again = serve(server, "shutdown", "-y")
    assert again.returncode == 0, again.stderr

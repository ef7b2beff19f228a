"""An older Ray's own classes and `serve` command read what `--ray-version` makes the head say.

Run by an interpreter that has that older Ray; which one it is decides the flag. The newest Ray is
the matter of the end-to-end tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import requests
import yaml
from ray.serve.schema import ServeInstanceDetails
from support.config import Json, app, deployment, noop, sleep
from support.server import Server
from support.waiting import wait_until

SERVE = Path(sys.executable).with_name("serve")
COMMAND_SECONDS_MAX = 60  # importing ray takes seconds on a busy machine
FAILS_SECONDS_MAX = 60.0  # three starts of a worker's replica
NEWEST_KEYS = [
    "controller_health_metrics",
    "restores_unset_config_options",
    "recent_dead_replicas",
]


class SpeakingAs(Server):
    """A `mobula run` with `--ray-version`."""

    def __init__(self, folder: Path, ray_version: str | None) -> None:
        super().__init__(folder)
        self.ray_version = ray_version

    def command(self, config: Json | None) -> list[str]:
        flag = [] if self.ray_version is None else ["--ray-version", self.ray_version]
        return [*super().command(config), *flag]


@contextmanager
def running(folder: Path, ray_version: str | None) -> Iterator[Server]:
    server = SpeakingAs(folder, ray_version)
    try:
        yield server.start()
    except BaseException:
        print(server.log_tail())
        raise
    finally:
        server.stop()


def broken() -> Json:
    """An application whose model does not exist."""
    env = {"env_vars": {"EMBEDDER_ONNX_PATH": "/no/such/model.onnx"}}
    return app("broken", "embedder", "/broken", deployment("Embedder"), runtime_env=env)


def deploy_all(server: Server) -> None:
    """One application of each fate, with as many options as the older releases know."""
    scaled = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 3}
    autoscaled = app(
        "scaled",
        "echo",
        "/scaled",
        deployment("Echo", autoscaling_config=scaled),
        logging_config={"log_level": "DEBUG"},
    )
    wrong = app("wrong", "noop", "/wrong", deployment("Nobody"))
    fixed = sleep("fixed", "/fixed", 0.01, num_replicas=2, max_queued_requests=7)
    answer = server.put(server.config([fixed, autoscaled, wrong, broken()]))
    assert answer.status_code == 200, answer.text
    server.wait_app("fixed", "RUNNING")
    server.wait_app("scaled", "RUNNING")
    server.wait_app("wrong", "DEPLOY_FAILED")
    server.wait_app("broken", "DEPLOY_FAILED", FAILS_SECONDS_MAX)


@pytest.fixture(scope="module")
def as_this_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("old"), ray.__version__) as server:
        yield server


@pytest.fixture(scope="module")
def as_the_newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("new"), None) as server:
        server.deploy(server.config([noop()]))
        yield server


def serve(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RAY_DASHBOARD_ADDRESS": server.admin, "NO_COLOR": "1"}
    return subprocess.run(
        [str(SERVE), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
    )


def printed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_is_the_one_asked_for(as_this_ray: Server, as_the_newest: Server) -> None:
    def told(server: Server) -> str:
        return requests.get(f"{server.admin}/api/ray/version", timeout=10).json()["ray_version"]

    assert told(as_this_ray) == ray.__version__
    assert told(as_the_newest) == "2.60.0" != ray.__version__


def test_an_empty_head_is_understood(as_this_ray: Server) -> None:
    parsed = ServeInstanceDetails(**as_this_ray.document())
    assert parsed.applications == {}
    assert yaml.safe_load(printed(serve(as_this_ray, "status")))["applications"] == {}


def test_applications_that_run_and_that_failed_are_understood(as_this_ray: Server) -> None:
    deploy_all(as_this_ray)
    parsed = ServeInstanceDetails(**as_this_ray.document())
    statuses = {name: found.status.value for name, found in parsed.applications.items()}
    assert statuses == {
        "fixed": "RUNNING",
        "scaled": "RUNNING",
        "wrong": "DEPLOY_FAILED",
        "broken": "DEPLOY_FAILED",
    }
    fixed = parsed.applications["fixed"].deployments["Sleep"]
    assert [replica.state.value for replica in fixed.replicas] == ["RUNNING"] * 2
    assert fixed.deployment_config.max_queued_requests == 7
    scaled = parsed.applications["scaled"].deployments["Echo"]
    assert scaled.deployment_config.autoscaling_config["max_replicas"] == 2
    failed = parsed.applications["broken"].deployments["Embedder"]
    # The first release with a failed status of deployments is 2.41.
    word = "UNHEALTHY" if ray.__version__.startswith("2.40.") else "DEPLOY_FAILED"
    assert failed.status.value == word
    assert failed.status_trigger.value == "REPLICA_STARTUP_FAILED"
    assert "failed to start 3 times in a row" in failed.message
    assert "'Nobody' does not exist" in parsed.applications["wrong"].message


def test_the_older_command_shows_all_of_it(as_this_ray: Server) -> None:
    status = yaml.safe_load(printed(serve(as_this_ray, "status")))
    assert list(status["proxies"].values()) == ["HEALTHY"]
    shown = {name: found["status"] for name, found in status["applications"].items()}
    assert shown["fixed"] == "RUNNING" and shown["broken"] == "DEPLOY_FAILED"
    replicas = status["applications"]["fixed"]["deployments"]["Sleep"]["replica_states"]
    assert replicas == {"RUNNING": 2}
    configs = list(yaml.safe_load_all(printed(serve(as_this_ray, "config"))))
    assert {config["name"] for config in configs} == set(shown)


def test_the_older_command_deploys_and_shuts_down(as_this_ray: Server, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(as_this_ray.config([noop()]), sort_keys=False))
    printed(serve(as_this_ray, "deploy", str(path)))
    as_this_ray.wait_app("noop", "RUNNING")
    assert requests.get(f"{as_this_ray.url}/noop", timeout=10).status_code == 200
    wait_until(lambda: list(as_this_ray.document()["applications"]) == ["noop"], "only noop")
    ServeInstanceDetails(**as_this_ray.document())
    printed(serve(as_this_ray, "shutdown", "-y"))
    wait_until(lambda: as_this_ray.document()["applications"] == {}, "nothing is left")


def test_the_newest_keys_are_refused_here_which_is_why_there_is_a_flag(
    as_the_newest: Server,
) -> None:
    # Ray up to 2.53 has the ValidationError of pydantic 1, later ones that of pydantic 2.
    with pytest.raises(ValueError) as refused:
        ServeInstanceDetails(**as_the_newest.document())
    assert type(refused.value).__name__ == "ValidationError"
    for key in NEWEST_KEYS:
        assert key in str(refused.value)
    done = serve(as_the_newest, "status")
    assert done.returncode != 0
    assert "controller_health_metrics" in done.stdout + done.stderr

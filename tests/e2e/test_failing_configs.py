"""Configs with a mistake, through Ray's own `serve` command: what it says, and what stays.

Three kinds, by who finds the mistake: the command itself, which then sends nothing; the head at
once (400); the head after it answered 200 (`DEPLOY_FAILED`, with Ray's words).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from conftest import NewServer
from support.config import Json, app, deployment, noop
from support.server import Server

SERVE = Path(sys.executable).with_name("serve")
COMMAND_SECONDS_MAX = 60  # importing ray takes seconds on a busy machine
FAILS_SECONDS_MAX = 60.0  # three starts of a worker's replica
STEADY = noop("steady", "/steady")


def overridden(**fields: object) -> Json:
    """The application `bad`, with these fields in its deployment's entry."""
    return app("bad", "noop", "/bad", deployment("Noop", **fields))


MANUAL = "Manually setting num_replicas is not allowed when autoscaling_config is provided."
TWICE_NAMED = 'Found multiple configs for application "bad". Please remove all duplicates.'
TWICE_ROUTED = 'Found duplicate applications for route prefix "/bad".'
ZERO = ["deployments.0.num_replicas", "Input should be greater than 0"]

# What is wrong, the applications beside `steady`, what Ray's command says. The head says it too
# when a client sends it without looking.
REFUSED: list[tuple[str, list[Json], list[str], list[str]]] = [
    (
        "malformed import path",
        [{**overridden(), "import_path": "model"}],
        ['Got invalid import path "model".'],
        ["applications[1].import_path", "`model`"],
    ),
    (
        "import path with two colons",
        [{**overridden(), "import_path": "a:b:c"}],
        ['Got invalid import path "a:b:c".', "may have at most one colon"],
        ["applications[1].import_path: may have at most one colon, got `a:b:c`"],
    ),
    (
        "duplicate application names",
        [overridden(), {**overridden(), "route_prefix": "/other"}],
        [TWICE_NAMED],
        [TWICE_NAMED],
    ),
    (
        "duplicate route prefixes",
        [overridden(), {**overridden(), "name": "twin"}],
        [TWICE_ROUTED],
        [TWICE_ROUTED],
    ),
    (
        "num_replicas beside autoscaling_config",
        [overridden(num_replicas=2, autoscaling_config={"max_replicas": 3})],
        [MANUAL],
        [MANUAL],
    ),
    (
        "num_replicas 0",
        [overridden(num_replicas=0)],
        ZERO,
        ["num_replicas: must be an integer of at least 1"],
    ),
    (
        "unknown key of backpressure_config",
        [overridden(backpressure_config={"status": 429})],
        ["backpressure_config.status"],
        ["backpressure_config.status: ", "allowed: status_code, retry_after_s"],
    ),
    (
        "host of an application",
        [{**overridden(), "host": "127.0.0.1"}],
        ["Please remove it and set host in the top level deploy config only"],
        ["applications[1].host: ", "set http_options.host in the top level deploy config only"],
    ),
]

# What is wrong, the application, what its message says.
LATE: list[tuple[str, Json, list[str]]] = [
    (
        "unknown deployment",
        app("bad", "noop", "/bad", deployment("Noop"), deployment("Nobody")),
        ["Deployment 'Nobody' does not exist. Available: ['Noop']"],
    ),
    (
        "fewer replicas at most than at least",
        overridden(autoscaling_config={"min_replicas": 3, "max_replicas": 2}),
        ["max_replicas (2) must be greater than or equal to min_replicas (3)!"],
    ),
    (
        "autoscaling target 0",
        overridden(autoscaling_config={"target_ongoing_requests": 0}),
        ["autoscaling_config.target_ongoing_requests: must be a number above 0, got 0"],
    ),
    (
        "route prefix without a slash",
        {**overridden(), "route_prefix": "bad"},
        ["Invalid route_prefix 'bad', must start with a forward slash ('/')."],
    ),
    (
        "route prefix with a slash at its end",
        {**overridden(), "route_prefix": "/bad/"},
        ["Invalid route_prefix '/bad/', may not end with a trailing '/'."],
    ),
    (
        "route prefix with a wildcard",
        {**overridden(), "route_prefix": "/{bad}"},
        ["Invalid route_prefix '/{bad}', may not contain wildcards."],
    ),
]


def named(cases: list) -> list:
    """The cases as parameters, called by what is wrong."""
    return [pytest.param(*rest, id=what) for what, *rest in cases]


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    made = new_module_server()
    return made.start(made.config([STEADY]))


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
    path.write_text(yaml.safe_dump(server.config([STEADY, *applications]), sort_keys=False))
    return serve(server, "deploy", str(path))


def told(server: Server, name: str) -> Json:
    """What `serve status` says of an application."""
    done = serve(server, "status", "-n", name)
    assert done.returncode == 0, done.stdout + done.stderr
    return yaml.safe_load(done.stdout)


def steady_state(server: Server) -> tuple[Json, list[str]]:
    """What must not change when a config is refused: the document, the replicas."""
    applications = server.document()["applications"]
    return applications, [replica["replica_id"] for replica in server.replicas("steady", "Noop")]


@pytest.mark.parametrize(("applications", "command_says", "head_says"), named(REFUSED))
def test_a_mistake_of_form_leaves_everything_as_it_was(
    server: Server,
    tmp_path: Path,
    applications: list[Json],
    command_says: list[str],
    head_says: list[str],
) -> None:
    before = steady_state(server)
    done = deploy(server, tmp_path, applications)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Sent deploy request successfully." not in said
    for words in command_says:
        assert words in said

    answer = server.put(server.config([STEADY, *applications]))
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    for words in head_says:
        assert words in answer.text

    assert steady_state(server) == before
    assert requests.get(f"{server.url}/steady", timeout=10).status_code == 200


def test_an_unknown_import_path_is_refused_by_the_head_with_those_that_exist(
    server: Server, tmp_path: Path
) -> None:
    before = steady_state(server)
    unknown = {**overridden(), "import_path": "mobula.apps:nobody"}
    done = deploy(server, tmp_path, [unknown])
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Request failed with status code 400" in said
    for words in ["mobula.apps:nobody", "mobula.apps:noop", "mobula.apps:embedder"]:
        assert words in said
    assert steady_state(server) == before


@pytest.mark.parametrize(("application", "message"), named(LATE))
def test_a_mistake_found_late_fails_that_application_alone(
    server: Server, tmp_path: Path, application: Json, message: list[str]
) -> None:
    done = deploy(server, tmp_path, [application])
    assert done.returncode == 0, done.stdout + done.stderr
    server.wait_app("bad", "DEPLOY_FAILED")
    shown = told(server, "bad")
    assert shown["status"] == "DEPLOY_FAILED"
    assert shown["deployments"] == {}
    for words in message:
        assert words in shown["message"]
    assert told(server, "steady")["status"] == "RUNNING"
    assert requests.get(f"{server.url}/bad", timeout=10).status_code == 404
    assert requests.get(f"{server.url}/steady", timeout=10).status_code == 200

    # A better config is all that it takes.
    assert deploy(server, tmp_path, [overridden()]).returncode == 0
    server.wait_app("bad", "RUNNING")
    assert requests.get(f"{server.url}/bad", timeout=10).status_code == 200
    assert deploy(server, tmp_path, []).returncode == 0


def test_a_model_directory_that_does_not_exist_fails_after_three_starts(
    server: Server, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no-such-model")
    embedder = app("bad", "embedder", "/bad", deployment("Embedder"), args={"model": missing})
    done = deploy(server, tmp_path, [embedder])
    assert done.returncode == 0, done.stdout + done.stderr
    server.wait_app("bad", "DEPLOY_FAILED", FAILS_SECONDS_MAX)
    shown = told(server, "bad")
    failed = shown["deployments"]["Embedder"]
    assert (failed["status"], failed["status_trigger"]) == (
        "DEPLOY_FAILED",
        "REPLICA_STARTUP_FAILED",
    )
    assert failed["message"].startswith("The deployment failed to start 3 times in a row")
    assert missing in failed["message"]
    assert failed["replica_states"] == {}
    assert told(server, "steady")["status"] == "RUNNING"
    refused = requests.get(f"{server.url}/bad", timeout=10)
    assert refused.status_code == 503
    assert "is unavailable because it failed to deploy." in refused.text

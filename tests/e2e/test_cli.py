"""Mobula's own commands: as helpful as Ray's where both exist, and the same YAML."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import NewServer
from support.config import deployment, noop, sleep
from support.server import REPOSITORY, Server, binary
from test_serve_cli import printed, serve


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    return new_module_server().start()


def mobula(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "path", sorted(Path(REPOSITORY, "examples").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_examples_are_valid(path: Path) -> None:
    done = mobula("validate", str(path))
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout


def test_validate_names_the_line_the_field_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "applications:\n"
        "  - name: a\n"
        "    import_path: mobula.apps:noop\n"
        "    deployments:\n"
        "      - name: Noop\n"
        "        num_replicas: -3\n"
    )
    done = mobula("validate", str(path))
    assert done.returncode != 0
    assert "num_replicas" in done.stderr and "6" in done.stderr and "auto" in done.stderr
    assert "panicked" not in done.stderr


def test_deploy_status_and_config_print_what_rays_command_prints(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "serve.yaml"
    applications = [noop("one", "/one"), sleep("two", "/two", 0.01, num_replicas=2)]
    path.write_text(yaml.safe_dump(server.config(applications), sort_keys=False))
    done = mobula("deploy", str(path), "-a", server.admin)
    assert done.returncode == 0, done.stderr
    server.wait_app("one", "RUNNING")
    server.wait_app("two", "RUNNING")

    ours, rays = mobula("status", "-a", server.admin), serve(server, "status")
    assert printed(ours) == printed(rays)
    ours, rays = mobula("config", "-a", server.admin), serve(server, "config")
    assert list(yaml.safe_load_all(ours.stdout)) == list(yaml.safe_load_all(rays.stdout))
    one = mobula("status", "-a", server.admin, "-n", "one")
    assert printed(one)["status"] == "RUNNING"
    nobody = mobula("status", "-a", server.admin, "-n", "nobody")
    assert nobody.returncode != 0 and "nobody" in nobody.stderr


def test_a_refused_deploy_says_why(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "foreign.yaml"
    foreign = {**noop("one", "/one"), "import_path": "somebodys.python:app"}
    path.write_text(yaml.safe_dump(server.config([foreign])))
    done = mobula("deploy", str(path), "-a", server.admin)
    assert done.returncode != 0
    assert "somebodys.python:app" in done.stderr and "mobula.apps:noop" in done.stderr


def test_what_does_not_act_is_told_as_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "legacy.yaml"
    entry = deployment("Noop", max_concurrent_queries=5)
    path.write_text(yaml.safe_dump({"applications": [{**noop(), "deployments": [entry]}]}))
    done = mobula("validate", str(path))
    assert done.returncode == 0, done.stderr
    assert "max_concurrent_queries" in done.stderr


def test_shutdown_deletes_everything(server: Server) -> None:
    done = mobula("shutdown", "-y", "-a", server.admin)
    assert done.returncode == 0, done.stderr
    assert server.document()["applications"] == {}


def test_an_address_where_nobody_listens_is_named(server: Server) -> None:
    done = mobula("status", "-a", "http://127.0.0.1:1")
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr and "panicked" not in done.stderr


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path) -> None:
    address = server.admin.removeprefix("http://")
    done = mobula("run", "--admin-addr", address, "--state-dir", str(tmp_path))
    assert done.returncode != 0
    assert address in done.stderr and "panicked" not in done.stderr


def test_the_cached_models_are_listed() -> None:
    done = mobula("models", "list")
    assert done.returncode == 0, done.stderr
    assert "all-MiniLM-L6-v2" in done.stdout

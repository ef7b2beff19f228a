"""The admin port over TLS: Ray's own clients and ours, and a certificate replaced in service."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from conftest import NewServer
from support.config import noop
from support.exposition import total
from support.server import Server, binary
from support.waiting import wait_until
from test_serve_cli import printed, serve
from test_tls import write_pair


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "admin.crt", tmp_path / "admin.key"
    write_pair(cert, key)
    return cert, key


@pytest.fixture
def server(
    new_server: NewServer, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Server:
    cert, key = pair
    # What `requests`, and with it all of Ray's clients, look for.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    made = new_server(more_args=["--admin-tls-cert", str(cert), "--admin-tls-key", str(key)])
    made.admin = f"https://localhost:{made.admin_port}"
    # It deploys its own config over the port as well.
    made.start(made.config([noop()]))
    return made


def mobula(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [binary(), *arguments, "--address", server.admin]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_rays_serve_command_speaks_https_to_it(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump(server.config([noop(), noop("more", "/more")])))
    done = serve(server, "deploy", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    server.wait_app("more", "RUNNING")
    status = printed(serve(server, "status"))
    assert set(status["applications"]) == {"noop", "more"}


def test_our_own_command_believes_the_file_or_the_variable_and_nobody_else(
    server: Server, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mobula(server, "status").returncode == 0
    other = tmp_path / "other.crt"
    write_pair(other, tmp_path / "other.key")
    done = mobula(server, "status", "--ca-file", str(other))
    assert done.returncode != 0
    assert "invalid peer certificate" in done.stderr and "--ca-file" in done.stderr, done.stderr
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert mobula(server, "status").returncode != 0
    assert mobula(server, "status", "--ca-file", str(pair[0])).returncode == 0
    missing = str(tmp_path / "missing.crt")
    done = mobula(server, "status", "--ca-file", missing)
    assert f"--ca-file: {missing}: No such file" in done.stderr, done.stderr


def test_plain_http_gets_no_answer_there(server: Server) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://localhost:{server.admin_port}/livez", timeout=10)


def test_a_new_certificate_is_taken_in_service(server: Server, pair: tuple[Path, Path]) -> None:
    def shown() -> bytes | None:
        anyone = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", server.admin_port), 10) as plain:
            with anyone.wrap_socket(plain) as tls:
                return tls.getpeercert(binary_form=True)

    kept = requests.Session()
    assert kept.get(f"{server.admin}/livez", timeout=10).status_code == 200
    new = write_pair(*pair)
    wait_until(lambda: shown() == new, "new connections are shown the new certificate")
    assert kept.get(f"{server.admin}/livez", timeout=10).status_code == 200
    taken = {"credential": "admin_certificate", "outcome": "taken"}
    assert total(server.metrics(), "mobula_credential_reloads_total", **taken) == 1


def test_a_pair_that_does_not_fit_ends_the_process_at_the_start(
    new_server: NewServer, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, _ = pair
    other = tmp_path / "other.key"
    write_pair(tmp_path / "other.crt", other)
    made = new_server(more_args=["--admin-tls-cert", str(cert), "--admin-tls-key", str(other)])
    made.spawn()
    assert made.wait_exit() != 0
    says = f"--admin-tls-key: {other}: is not the key of the certificate in --admin-tls-cert"
    assert says in made.log_tail()

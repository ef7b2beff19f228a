"""How `mobula run` starts when something is in the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import NewServer
from support import processes
from support.config import noop, sleep
from support.exposition import total
from support.server import Server, binary
from support.waiting import wait_until

BANNER_S = 2.0  # the banner is printed within this after everything serves


def test_a_second_process_on_the_same_state_is_refused(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    first.start(first.config([noop()]))
    second.state_dir = first.state_dir
    second.spawn()
    assert second.wait_exit(15) != 0
    said = second.log_tail()
    assert "panicked" not in said
    assert str(first.state_dir) in said
    assert first._answers_200(f"{first.url}/noop")


def test_a_wrong_config_ends_it_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"name": "a"}]}))
    command = [binary(), "run", str(path), "--state-dir", str(tmp_path / "state")]
    command += ["--admin-addr", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "import_path" in done.stderr and "panicked" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_taken_is_told_and_opened_when_it_is_free(new_server: NewServer) -> None:
    server = new_server()
    with socket.socket() as somebody_else:
        somebody_else.bind(("127.0.0.1", server.http_port))
        somebody_else.listen()
        server.spawn(server.config([noop()]))
        wait_until(lambda: "is taken; waiting" in server.log_tail(), "a word about the port")
        server.wait_app("noop", "RUNNING")
        assert "is serving" not in server.log_tail()
    server.wait_healthy()
    wait_until(lambda: "is serving" in server.log_tail(), "the banner")


def test_nobody_has_to_read_what_it_prints(new_server: NewServer) -> None:
    server = new_server()
    reading, writing = os.pipe()
    os.close(reading)
    with server.log_path.open("wb") as log, os.fdopen(writing, "wb") as closed:
        server.process = subprocess.Popen(
            server.command(server.config([noop()])),
            stdout=closed,
            stderr=log,
            env={**os.environ, processes.MARK: server.mark},
        )
    server.wait_healthy()
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait_exit(BANNER_S)
    assert "panicked" not in server.log_tail()


def test_a_second_signal_does_not_wait_for_requests(new_server: NewServer) -> None:
    server = new_server()
    server.start(server.config([sleep("slow", "/slow", 3600)]))
    with socket.create_connection(("127.0.0.1", server.http_port)) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        name = "ray_serve_replica_processing_queries"
        wait_until(lambda: total(server.metrics(), name) == 1, "the request is in flight")
        server.signal(signal.SIGTERM)
        wait_until(lambda: _refused(server), "new connections are refused")
        server.signal(signal.SIGTERM)
        server.wait_exit(10)
    wait_until(lambda: server.pids() == [], "no process is left")


def _refused(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.http_port), timeout=2).close()
        return False
    except ConnectionError:
        return True

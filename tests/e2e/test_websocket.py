"""WebSockets through the router to a replica, with the `websockets` client."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from contextlib import AbstractContextManager

import pytest
import requests
from conftest import NewServer
from support.config import Json, app, deployment, noop
from support.exposition import total
from support.server import Server
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

REQUEST_TIMEOUT_S = 1.0
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-key: {key}\r\nsec-websocket-version: {version}\r\n\r\n"
)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    applications = [
        app("echo", "echo", "/echo", deployment("Echo")),
        app("one", "echo", "/one", deployment("Echo", max_ongoing_requests=1)),
        noop(),
    ]
    made = new_module_server()
    return made.start(made.config(applications, request_timeout_s=REQUEST_TIMEOUT_S))


def opened(server: Server, path: str = "/echo") -> AbstractContextManager[ClientConnection]:
    url = f"ws://127.0.0.1:{server.http_port}{path}"
    return connect(url, max_size=None, open_timeout=20, close_timeout=20)


def in_flight(server: Server, application: str = "echo") -> float:
    return total(server.metrics(), "ray_serve_replica_processing_queries", application=application)


def counted(server: Server, code: int, application: str = "echo") -> tuple[float, float]:
    """How many requests ended with that close code, and how many errors."""
    text = server.metrics()
    requests_ = total(
        text, "ray_serve_num_http_requests_total", application=application, status_code=str(code)
    )
    errors = total(
        text,
        "ray_serve_num_http_error_requests_total",
        application=application,
        error_code=str(code),
    )
    return requests_, errors


def test_texts_and_bytes_come_back_in_order(server: Server) -> None:
    sent: list[str | bytes] = ["hello", "", "\u00e9\u20ac", b"\x00\xff", os.urandom(3_000_000)]
    with opened(server) as client:
        for message in sent:
            client.send(message)
        assert [client.recv(20) for _ in sent] == sent
        assert client.response is not None
        assert client.response.headers["x-request-id"]


def test_a_message_in_fragments_comes_back_whole(server: Server) -> None:
    with opened(server) as client:
        client.send(["one ", "two ", "three"])
        assert client.recv(20) == "one two three"


def test_a_ping_of_the_client_is_answered(server: Server) -> None:
    with opened(server) as client:
        assert client.ping().wait(20)


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_client_that_closes_is_no_error(server: Server, code: int) -> None:
    before = counted(server, code)
    with opened(server) as client:
        client.close(code)
        assert client.close_code == code
    wait_until(lambda: counted(server, code)[0] == before[0] + 1, f"{code} is counted")
    assert counted(server, code)[1] == 0
    wait_until(lambda: in_flight(server) == 0, "the replica is free")


@pytest.mark.parametrize(
    ("code", "raised"), [(1000, ConnectionClosedOK), (4007, ConnectionClosedError)]
)
def test_the_replica_closes_with_the_code_that_it_chose(
    server: Server, code: int, raised: type[Exception]
) -> None:
    before, errors_before = counted(server, code)
    with opened(server) as client:
        client.send(f"close {code}")
        with pytest.raises(raised):
            client.recv(20)
        assert (client.close_code, client.close_reason) == (code, "as told")
    wait_until(lambda: counted(server, code)[0] == before + 1, f"{code} is counted")
    is_error = code not in (1000, 1001)
    assert counted(server, code)[1] == errors_before + is_error


def raw(server: Server, path: str = "/echo", key: str = KEY, version: int = 13) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.http_port), 20)
    client.sendall(HANDSHAKE.format(path=path, key=key, version=version).encode())
    return client


def head_of(client: socket.socket) -> str:
    read = b""
    while b"\r\n\r\n" not in read:
        piece = client.recv(4096)
        assert piece, read
        read += piece
    return read.decode()


def test_a_client_that_vanishes_frees_the_replica(server: Server) -> None:
    clients = [raw(server) for _ in range(2)]
    for client in clients:
        assert head_of(client).startswith("HTTP/1.1 101 ")
    wait_until(lambda: in_flight(server) == 2, "both are open at the replica")
    clients[0].close()
    # A reset instead of an end.
    clients[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[1].close()
    wait_until(lambda: in_flight(server) == 0, "the replica is free")


def test_frames_that_come_with_the_handshake_are_not_lost(server: Server) -> None:
    # "hi", masked with zeroes.
    frame = b"\x81\x82\x00\x00\x00\x00hi"
    client = socket.create_connection(("127.0.0.1", server.http_port), 20)
    client.sendall(HANDSHAKE.format(path="/echo", key=KEY, version=13).encode() + frame)
    read = b""
    while not read.endswith(b"\x81\x02hi"):
        piece = client.recv(4096)
        assert piece, read
        read += piece
    client.close()


def test_a_bad_handshake_is_refused_by_name(server: Server) -> None:
    old = head_of(raw(server, version=8))
    assert old.startswith("HTTP/1.1 426 ") and "sec-websocket-version: 13" in old
    assert head_of(raw(server, key="short")).startswith("HTTP/1.1 400 ")
    assert head_of(raw(server, path="/no-such")).startswith("HTTP/1.1 404 ")


def test_an_application_without_websockets_answers_as_ever(server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught, opened(server, "/noop"):
        pass
    assert caught.value.response.status_code == 200
    # And the connection is an ordinary one.
    client = raw(server, "/noop")
    assert head_of(client).startswith("HTTP/1.1 200 ")
    client.sendall(b"GET /noop HTTP/1.1\r\nhost: x\r\n\r\n")
    assert "200" in head_of(client)


def test_an_open_websocket_is_a_request_and_outlasts_the_time_out(server: Server) -> None:
    with opened(server, "/one") as client:
        client.send("first")
        assert client.recv(20) == "first"
        # The only slot is taken, so another request waits until its time is over.
        late = requests.get(f"{server.url}/one", timeout=20)
        assert late.status_code == 408
        client.send("still here")
        assert client.recv(20) == "still here"
    wait_until(lambda: in_flight(server, "one") == 0, "the slot is free")
    assert requests.get(f"{server.url}/one", timeout=20).status_code == 200


def test_many_at_once_do_not_mix(server: Server) -> None:
    failures: list[str] = []

    def talk(number: int) -> None:
        with opened(server) as client:
            for turn in range(20):
                client.send(f"{number}:{turn}")
                said = client.recv(20)
                if said != f"{number}:{turn}":
                    failures.append(f"{number}:{turn} came back as {said!r}")

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until(lambda: in_flight(server) == 0, "the replica is free")


def test_a_server_that_stops_says_goodbye_after_what_is_under_way(new_server: NewServer) -> None:
    server = new_server()
    server.start(server.config([app("echo", "echo", "/echo", deployment("Echo"))]))
    with opened(server) as idle, opened(server) as busy:
        idle.send("hello")
        assert idle.recv(20) == "hello"
        busy.send("later 1")
        assert busy.recv(20) == "soon"
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosedOK):
            idle.recv(20)
        assert (idle.close_code, idle.close_reason) == (1001, "going away")
        assert busy.recv(20) == "later 1"
        with pytest.raises(ConnectionClosedOK):
            busy.recv(20)
        assert busy.close_code == 1001
    assert server.wait_exit() == 0


def test_a_replica_that_is_replaced_says_goodbye_and_the_next_one_takes_over(
    new_server: NewServer,
) -> None:
    server = new_server()

    def version(number: int) -> Json:
        environ = {"env_vars": {"VERSION": str(number)}}
        return server.config(
            [app("echo", "echo", "/echo", deployment("Echo"), runtime_env=environ)]
        )

    server.start(version(1))
    with opened(server) as idle, opened(server) as busy:
        busy.send("later 1")
        assert busy.recv(20) == "soon"
        assert server.put(version(2)).status_code == 200
        with pytest.raises(ConnectionClosedError):
            idle.recv(20)
        assert (idle.close_code, idle.close_reason) == (1012, "service restart")
        # The replica that was told to restart is not asked again.
        with opened(server) as again:
            again.send("hello")
            assert again.recv(20) == "hello"
            assert busy.recv(20) == "later 1"
            with pytest.raises(ConnectionClosedError):
                busy.recv(20)
            assert busy.close_code == 1012
    wait_until(lambda: counted(server, 1012) == (2, 0), "both are counted, and are no errors")


def test_one_that_never_reads_is_closed_before_the_replica_is_cut_off(
    new_server: NewServer,
) -> None:
    server = new_server()
    echo = deployment("Echo", graceful_shutdown_timeout_s=2)
    server.start(server.config([app("echo", "echo", "/echo", echo)]))
    with opened(server) as client:
        client.send("later 3000")
        assert client.recv(20) == "soon"
        assert server.put(server.config([])).status_code == 200
        with pytest.raises(ConnectionClosedError):
            client.recv(20)
        assert client.close_code == 1012

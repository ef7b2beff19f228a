"""`mobula.queueing`: who waits is started by class and by tenant, and nobody waits for ever.

The only slot of a replica is held by a WebSocket at a time, so the order in which they open is
the order in which they were started.
"""

from __future__ import annotations

import select
import socket

import pytest
from conftest import NewServer
from support.config import Json, app, deployment
from support.exposition import total
from support.server import Server
from support.waiting import wait_until

HANDSHAKE = (
    "GET /{app} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{headers}\r\n"
)
PASSED_OVER_MAX = 8

ORDERED = {"priorities": ["high", "normal", "low"], "tenant_header": "x-tenant"}
WEIGHTED = {"tenant_header": "x-tenant", "tenant_weights": {"gold": 2}}
NARROW = {"tenant_header": "x-tenant"}


def one_slot(name: str, queueing: Json | None, **fields: object) -> Json:
    extension = {} if queueing is None else {"mobula": {"queueing": queueing}}
    only = deployment("Echo", max_ongoing_requests=1, **fields, **extension)
    return app(name, "echo", f"/{name}", only)


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    applications = [
        one_slot("plain", None),
        one_slot("ordered", ORDERED),
        one_slot("weighted", WEIGHTED),
        one_slot("narrow", NARROW, max_queued_requests=3),
    ]
    made = new_module_server()
    return made.start(made.config(applications))


class Line:
    """Clients of one application, in the order in which they came."""

    def __init__(self, server: Server, application: str) -> None:
        self.server, self.application = server, application
        self.clients: dict[socket.socket, str] = {}
        wait_until(lambda: self.queued() == 0, "nobody waits")
        self.holder = self._connect("")
        assert self.holder.recv(4096).startswith(b"HTTP/1.1 101 ")

    def _connect(self, headers: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.http_port), 20)
        client.sendall(HANDSHAKE.format(app=self.application, headers=headers).encode())
        return client

    def queued(self) -> float:
        return total(
            self.server.metrics(),
            "ray_serve_deployment_queued_queries",
            application=self.application,
        )

    def join(self, name: str, *, priority: str = "", tenant: str = "") -> None:
        headers = f"x-priority: {priority}\r\n" if priority else ""
        headers += f"x-tenant: {tenant}\r\n" if tenant else ""
        self.clients[self._connect(headers)] = name
        wait_until(lambda: self.queued() == len(self.clients), f"{name} waits")

    def opened(self) -> str:
        """The one that was started, which gives its slot to the next."""
        readable, _, _ = select.select(list(self.clients), [], [], 20)
        assert len(readable) == 1, "one slot, one at a time"
        name = self.clients.pop(readable[0])
        assert readable[0].recv(4096).startswith(b"HTTP/1.1 101 ")
        readable[0].close()
        return name

    def order(self) -> list[str]:
        self.holder.close()
        return [self.opened() for _ in range(len(self.clients))]


def test_without_queueing_they_start_as_they_came(server: Server) -> None:
    line = Line(server, "plain")
    line.join("a", priority="low", tenant="a")
    line.join("b", priority="high", tenant="a")
    line.join("c", priority="high", tenant="c")
    assert line.order() == ["a", "b", "c"]


def test_classes_go_before_tenants_and_tenants_take_turns(server: Server) -> None:
    line = Line(server, "ordered")
    line.join("low", priority="low", tenant="c")
    line.join("a1", priority="normal", tenant="a")
    line.join("a2", priority="normal", tenant="a")
    line.join("b1", priority="normal", tenant="b")
    line.join("high", priority="high", tenant="a")
    # A class that does not exist, and none, are the lowest.
    line.join("none", tenant="d")
    line.join("unknown", priority="urgent", tenant="e")
    assert line.order() == ["high", "a1", "b1", "a2", "low", "none", "unknown"]


def test_a_low_class_does_not_starve(server: Server) -> None:
    line = Line(server, "ordered")
    line.join("low", priority="low")
    for number in range(PASSED_OVER_MAX + 2):
        line.join(f"high{number}", priority="high")
    assert line.order().index("low") == PASSED_OVER_MAX


def test_a_tenant_with_a_weight_gets_more_in_its_turn(server: Server) -> None:
    line = Line(server, "weighted")
    for number in range(3):
        line.join(f"plain{number}", tenant="plain")
    for number in range(3):
        line.join(f"gold{number}", tenant="gold")
    assert line.order() == ["plain0", "gold0", "gold1", "plain1", "gold2", "plain2"]


def test_a_full_queue_is_not_one_tenants_alone(server: Server) -> None:
    line = Line(server, "narrow")
    for number in range(3):
        line.join(f"many{number}", tenant="many")
    late = line._connect("x-tenant: few\r\n")
    line.clients[late] = "few"
    # The last one of whoever has the most is refused instead.
    readable, _, _ = select.select(list(line.clients), [], [], 20)
    assert [line.clients.pop(client) for client in readable] == ["many2"]
    refused = readable[0].recv(4096).decode()
    assert refused.startswith("HTTP/1.1 503 ")
    assert "(num_queued_requests=3, max_queued_requests=3)" in refused
    assert line.order() == ["many0", "few", "many1"]


def test_a_client_that_leaves_gives_its_turn_up(server: Server) -> None:
    line = Line(server, "ordered")
    line.join("gone", priority="high")
    line.join("stays", priority="high")
    gone = next(client for client, name in line.clients.items() if name == "gone")
    del line.clients[gone]
    gone.close()
    wait_until(lambda: line.queued() == 1, "one waits")
    assert line.order() == ["stays"]


def test_nonsense_is_refused_by_name(server: Server) -> None:
    config = server.config([one_slot("bad", {"priorities": ["a", "a"]})])
    answer = server.put(config)
    assert answer.status_code == 400
    assert "mobula.queueing.priorities: has a name twice" in answer.text

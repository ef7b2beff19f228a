"""Queues, time-outs and sizes are bounded, and say so in Ray Serve's words."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from conftest import NewServer
from support.config import app, deployment, sleep
from support.exposition import total
from support.server import Server
from support.waiting import wait_until

TIMEOUT_S = 2.5
STRICT_LIMIT = 2
STRICT_SECONDS = 0.4
NO_TIMEOUT = {"x-request-timeout-seconds": "0"}


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    one = {"max_ongoing_requests": 1}
    polite = {"status_code": 429, "retry_after_s": 3}
    applications = [
        sleep("queue", "/queue", 0.6, **one, max_queued_requests=1),
        sleep("polite", "/polite", 0.6, **one, max_queued_requests=1, backpressure_config=polite),
        sleep("strict", "/strict", STRICT_SECONDS, max_ongoing_requests=STRICT_LIMIT),
        sleep("forever", "/forever", 3600, max_ongoing_requests=2),
        app("echo", "echo", "/echo", deployment("Echo")),
    ]
    made = new_module_server()
    return made.start(made.config(applications, request_timeout_s=TIMEOUT_S))


def get_many(server: Server, path: str, count: int) -> list[requests.Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: requests.get(server.url + path, timeout=30), range(count)))


def in_flight(server: Server, application: str) -> float:
    return total(server.metrics(), "ray_serve_replica_processing_queries", application=application)


def test_a_full_queue_refuses_with_503_and_rays_text(server: Server) -> None:
    answers = get_many(server, "/queue", 5)
    assert sorted(a.status_code for a in answers) == [200, 200, 503, 503, 503]
    refused = next(a for a in answers if a.status_code == 503)
    assert refused.text == (
        "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
    )
    assert refused.headers["content-type"].startswith("text/plain")
    assert "retry-after" not in refused.headers


def test_backpressure_config_chooses_429_and_retry_after(server: Server) -> None:
    answers = get_many(server, "/polite", 4)
    assert sorted(a.status_code for a in answers) == [200, 200, 429, 429]
    assert {a.headers["retry-after"] for a in answers if a.status_code == 429} == {"3"}


def test_max_ongoing_requests_is_strict(server: Server) -> None:
    seen: list[float] = []
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(requests.get, f"{server.url}/strict", headers=NO_TIMEOUT, timeout=30)
            for _ in range(8)
        ]
        while not all(future.done() for future in waiting):
            seen.append(in_flight(server, "strict"))
        statuses = [future.result().status_code for future in waiting]
    assert statuses == [200] * 8
    assert max(seen) == STRICT_LIMIT
    # 8 requests, 2 at a time: faster than 4 rounds is only possible beyond the limit.
    assert time.monotonic() - started >= 4 * STRICT_SECONDS


def test_request_timeout_s_gives_408_with_rays_text(server: Server) -> None:
    answer = requests.get(f"{server.url}/forever", headers={"x-request-id": "late"}, timeout=30)
    assert (answer.status_code, answer.text) == (408, f"Request late timed out after {TIMEOUT_S}s.")


def test_a_request_may_bring_its_own_timeout(server: Server) -> None:
    headers = {"x-request-id": "mine", "x-request-timeout-seconds": "0.3"}
    answer = requests.get(f"{server.url}/forever", headers=headers, timeout=30)
    assert (answer.status_code, answer.text) == (408, "Request mine timed out after 0.3s.")
    wait_until(lambda: in_flight(server, "forever") == 0, "the slots are free again")


def test_a_client_that_goes_away_frees_its_slot(server: Server) -> None:
    gone = [socket.create_connection(("127.0.0.1", server.http_port)) for _ in range(2)]
    for client in gone:
        client.sendall(b"GET /forever HTTP/1.1\r\nhost: x\r\nx-request-timeout-seconds: 0\r\n\r\n")
    wait_until(lambda: in_flight(server, "forever") == 2, "both slots are taken")
    for client in gone:
        client.close()
    # Nothing else ends these calls: their replica sleeps for an hour, without a time-out.
    wait_until(lambda: in_flight(server, "forever") == 0, "both slots are free", 10)


def test_a_body_beyond_the_limit_is_refused_with_413(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    connection.putrequest("POST", "/echo")
    connection.putheader("content-length", str(10**12))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert re.search(r"\d", response.read().decode()), "the text names the limit"
    connection.close()


def test_a_large_body_below_the_limit_comes_back_whole(server: Server, tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(256)) * (8 * 1024 * 1024 // 256))
    # curl reads while it sends, as a client of a streaming application has to.
    command = ["curl", "-sS", "--data-binary", f"@{sent}", "-o", str(received)]
    command += ["-H", "content-type: application/x-ours", "-H", "x-request-timeout-seconds: 0"]
    command += ["-w", "%{http_code} %{content_type}", f"{server.url}/echo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "200 application/x-ours", done.stdout + done.stderr
    assert received.read_bytes() == sent.read_bytes()


def test_every_answer_carries_a_request_id(server: Server) -> None:
    mine: dict[str, str] = {"x-request-id": "order-66"}
    for path, status in [("/echo", 200), ("/no-such-path", 404)]:
        echoed = requests.get(server.url + path, headers=mine, timeout=10)
        made = requests.get(server.url + path, timeout=10)
        assert (echoed.status_code, made.status_code) == (status, status)
        assert echoed.headers["x-request-id"] == "order-66"
        assert uuid.UUID(made.headers["x-request-id"]).version == 4


def test_no_route_is_404_with_rays_text(server: Server) -> None:
    answer = requests.get(f"{server.url}/x", timeout=10)
    assert answer.status_code == 404
    assert answer.text.startswith("Path '/x' not found. Ping http://")
    assert answer.text.endswith("/-/routes for available routes.")


def test_routes_and_health_answer_as_rays_proxy_does(server: Server) -> None:
    routes = requests.get(f"{server.url}/-/routes", timeout=10)
    assert routes.json()["/forever"] == "forever"
    health = requests.get(f"{server.url}/-/healthz", timeout=10)
    assert (health.status_code, health.text) == (200, "success")

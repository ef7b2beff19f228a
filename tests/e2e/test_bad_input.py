"""Every endpoint against every kind of bad input: 4xx in that API's own shape, and it lives on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from support.config import Json
from support.server import Server

TOO_MANY_ROWS = 20_000
OVER_LONG = "word " * 3000  # several times what any of the models reads
DEPTH = 100_000


def tei(body: Json) -> bool:
    return isinstance(body["error"], str) and isinstance(body["error_type"], str)


def openai(body: Json) -> bool:
    error = body["error"]
    return isinstance(error["message"], str) and isinstance(error["type"], str)


def cohere(body: Json) -> bool:
    return isinstance(body["message"], str)


def infer(body: Json) -> bool:
    return isinstance(body["error"], str)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, a body that it takes, the field with the rows, and its errors' shape."""

    path: str
    good: Json
    rows: str
    shape: Callable[[Json], bool]
    truncates: bool = False  # whether the API cuts a long text without being asked
    knows_models: bool = False


ENDPOINTS = [
    Endpoint("/embed", {"inputs": ["x"]}, "inputs", tei),
    Endpoint("/rerank", {"query": "x", "texts": ["y"]}, "texts", tei),
    Endpoint("/predict", {"inputs": [["x"]]}, "inputs", tei),
    Endpoint("/tokenize", {"inputs": ["x"]}, "inputs", tei, truncates=True),
    Endpoint("/v1/embeddings", {"input": ["x"]}, "input", openai, knows_models=True),
    Endpoint(
        "/v1/rerank",
        {"query": "x", "documents": ["y"]},
        "documents",
        cohere,
        truncates=True,
        knows_models=True,
    ),
    Endpoint(
        "/v2/rerank",
        {"query": "x", "documents": ["y"]},
        "documents",
        cohere,
        truncates=True,
        knows_models=True,
    ),
    Endpoint("/infer", {"inputs": ["x"]}, "inputs", infer),
]


def bad_bodies(endpoint: Endpoint) -> Iterator[tuple[str, bytes]]:
    """What goes wrong, and the body that is sent."""

    def instead(rows: Any) -> bytes:
        return json.dumps({**endpoint.good, endpoint.rows: rows}).encode()

    nested = b"[" * DEPTH + b"]" * DEPTH
    yield "empty body", b""
    yield "not JSON", b"inputs=x"
    yield "JSON that ends early", instead(["x"])[:-3]
    yield "no object", b'["x"]'
    yield "no field", b"{}"
    yield "null", instead(None)
    yield "a number", instead(5)
    yield "a list of objects", instead([{"no": "text"}])
    yield "an empty list", instead([])
    yield "too many rows", instead(["x"] * TOO_MANY_ROWS)
    yield "invalid UTF-8", instead(["@"]).replace(b"@", b"\xff\xfe")
    yield "a lone surrogate", instead(["@"]).replace(b"@", b"\\ud800")
    yield "deep JSON", nested
    yield "deep JSON in the field", instead("@").replace(b'"@"', nested)
    if not endpoint.truncates:
        yield "an over-long text", instead([OVER_LONG])
    if endpoint.knows_models:
        yield "an unknown model", json.dumps({**endpoint.good, "model": "no/such-model"}).encode()


CASES = [
    pytest.param(endpoint, body, id=f"{endpoint.path} {what}")
    for endpoint in ENDPOINTS
    for what, body in bad_bodies(endpoint)
]


def post(rag: Server, path: str, body: bytes) -> requests.Response:
    headers = {"content-type": "application/json"}
    return requests.post(rag.url + path, data=body, headers=headers, timeout=60)


@pytest.fixture(scope="module", autouse=True)
def the_same_processes_live_on(rag: Server) -> Iterator[None]:
    """Nothing that the tests of this module send may end a process."""
    before = rag.pids()
    yield
    assert rag.pids() == before
    assert requests.get(f"{rag.url}/healthz", timeout=10).status_code == 200
    for endpoint in ENDPOINTS:
        answer = post(rag, endpoint.path, json.dumps(endpoint.good).encode())
        assert answer.status_code == 200, f"{endpoint.path}: {answer.text}"


@pytest.mark.parametrize(("endpoint", "body"), CASES)
def test_bad_input_is_refused_in_the_apis_own_shape(
    rag: Server, endpoint: Endpoint, body: bytes
) -> None:
    answer = post(rag, endpoint.path, body)
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"].startswith("application/json"), answer.text[:500]
    assert endpoint.shape(answer.json()), answer.text[:500]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_the_wrong_method_is_refused(rag: Server, endpoint: Endpoint) -> None:
    answer = requests.get(rag.url + endpoint.path, timeout=10)
    assert answer.status_code == 405, answer.text


def test_an_unknown_path_is_not_found(rag: Server) -> None:
    assert requests.post(f"{rag.url}/no/such/path", json={}, timeout=10).status_code == 404

"""The OpenAPI document is valid and names every endpoint."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openapi_spec_validator import validate
from support.server import Server

POSTS = [
    "/embed",
    "/rerank",
    "/predict",
    "/tokenize",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/infer",
]
GETS = ["/info", "/v1/models"]


@pytest.fixture(scope="module")
def document(rag: Server) -> dict[str, Any]:
    answer = requests.get(f"{rag.url}/openapi.json", timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    return answer.json()


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.")


def test_every_endpoint_is_named_with_its_errors(document: dict[str, Any]) -> None:
    paths = document["paths"]
    for path in POSTS:
        responses = paths[path]["post"]["responses"]
        assert "200" in responses, path
        assert any(code.startswith("4") for code in responses), f"{path} names its errors"
    for path in GETS:
        assert "200" in paths[path]["get"]["responses"], path


def test_every_path_of_the_document_exists(rag: Server, document: dict[str, Any]) -> None:
    fixed = {path: of for path, of in document["paths"].items() if "{" not in path}
    assert len(fixed) >= len(POSTS + GETS)
    for path, methods in fixed.items():
        for method in set(methods) & {"get", "post"}:
            answer = requests.request(method, rag.url + path, timeout=30)
            assert answer.status_code not in (404, 405, 500), f"{method} {path}: {answer.text}"

"""The official Cohere client against `/v2/rerank` and `/v1/rerank`, and Jina's shape of it."""

from __future__ import annotations

import cohere
import pytest
import requests
from support.server import Server

MODEL = "cross-encoder/ms-marco-MiniLM-L-12-v2"
QUERY = "How many people live in Berlin?"
DOCUMENTS = [
    "Berlin is well known for its museums.",
    "Berlin had a population of 3,520,031 registered inhabitants.",
    "New York City is famous for the Metropolitan Museum of Art.",
]


def test_v2_puts_the_answering_document_first(rag: Server) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=rag.url)
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    assert [row.index for row in answer.results][0] == 1
    assert sorted(row.index for row in answer.results) == [0, 1, 2]
    scores = [row.relevance_score for row in answer.results]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)


def test_v2_top_n_keeps_the_best(rag: Server) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=rag.url)
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=1)
    assert [row.index for row in answer.results] == [1]


def test_v1_returns_documents_when_asked(rag: Server) -> None:
    client = cohere.Client(api_key="unused", base_url=rag.url)
    answer = client.rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=True
    )
    assert len(answer.results) == 2
    best = answer.results[0]
    assert best.document is not None
    assert best.document.text == DOCUMENTS[1]


def test_v1_leaves_documents_out_when_not_asked(rag: Server) -> None:
    client = cohere.Client(api_key="unused", base_url=rag.url)
    answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, return_documents=False)
    assert all(row.document is None for row in answer.results)


def test_documents_may_be_objects_with_a_text(rag: Server) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": [{"text": text} for text in DOCUMENTS]}
    answer = requests.post(f"{rag.url}/v1/rerank", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["index"] == 1


def test_the_client_reports_an_unknown_model(rag: Server) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=rag.url)
    with pytest.raises((cohere.NotFoundError, cohere.BadRequestError)) as caught:
        client.rerank(model="no/such-model", query=QUERY, documents=DOCUMENTS)
    assert "no/such-model" in str(caught.value.body)


def test_the_client_reports_an_empty_list(rag: Server) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=rag.url)
    with pytest.raises((cohere.BadRequestError, cohere.UnprocessableEntityError)):
        client.rerank(model=MODEL, query=QUERY, documents=[])

"""The answers are the models': vectors of an independent implementation, real rankings."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import requests
from support.server import REPOSITORY, Server

REFERENCE = REPOSITORY / "crates" / "models" / "tests" / "data" / "reference.json"
COSINE_MIN = 0.9999  # f32 on both sides

RANKINGS = [
    (
        "how many people live in berlin",
        "Berlin had a population of 3,520,031 registered inhabitants.",
        ["Berlin is known for its museums.", "Paris has many cafés.", "Bears live in forests."],
    ),
    (
        "what is the capital of france",
        "Paris is the capital and largest city of France.",
        ["France is famous for its cheese.", "The capital must be invested.", "London is old."],
    ),
    (
        "how do vaccines work",
        "Vaccines train the immune system to recognise a pathogen.",
        ["The stock market fell.", "Dogs are loyal animals.", "Immune to criticism, he went on."],
    ),
    (
        "how to boil an egg",
        "Put the egg in boiling water for seven minutes, then cool it.",
        ["Chickens live on farms.", "Water is made of hydrogen.", "The kettle is broken."],
    ),
    (
        "who wrote romeo and juliet",
        "Romeo and Juliet is a tragedy written by William Shakespeare.",
        ["Juliet bought a car.", "The play starts at eight.", "Alfa Romeo builds cars in Italy."],
    ),
]


def embed(rag: Server, texts: list[str]) -> Any:
    body = {"inputs": texts, "truncate": True}
    answer = requests.post(f"{rag.url}/embed", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return np.asarray(answer.json(), dtype=float)


@pytest.fixture(scope="module")
def reference() -> list[tuple[str, Any]]:
    """Texts and the vectors of the Python implementation, which crates/models is tested with."""
    rows = json.loads(REFERENCE.read_text())["embed"]
    return [
        (row["text"], np.frombuffer(base64.b64decode(row["vector"]), dtype="<f4")) for row in rows
    ]


def cosines(rows: Any, wanted: Any) -> Any:
    rows, wanted = np.asarray(rows), np.asarray(wanted)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
    return (rows * wanted).sum(axis=1) / lengths


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 32])
def test_vectors_equal_the_reference_in_every_batch_size(
    rag: Server, reference: list[tuple[str, Any]], batch: int
) -> None:
    texts, wanted = [text for text, _ in reference], [vector for _, vector in reference]
    for at in range(0, len(texts), batch):
        got = embed(rag, texts[at : at + batch])
        assert got.shape == (len(texts[at : at + batch]), len(wanted[0]))
        assert cosines(got, wanted[at : at + batch]).min() > COSINE_MIN


@pytest.mark.parametrize(("query", "relevant", "others"), RANKINGS)
def test_the_relevant_text_comes_first_wherever_it_stands(
    rag: Server, query: str, relevant: str, others: list[str]
) -> None:
    for place in range(len(others) + 1):
        texts = others[:place] + [relevant] + others[place:]
        body = {"query": query, "texts": texts, "raw_scores": True}
        answer = requests.post(f"{rag.url}/rerank", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        rows = answer.json()
        assert rows[0]["index"] == place
        assert rows[0]["score"] > 0.0 > rows[1]["score"]

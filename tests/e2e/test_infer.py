"""The sentiment endpoint `/infer`: obvious sentences get the obvious label."""

from __future__ import annotations

import pytest
import requests
from support.server import Server

POSITIVE = [
    "I love this!",
    "What a wonderful, heart-warming film.",
    "Absolutely fantastic service, I will come back.",
    "The best meal I have had in years.",
    "She gave a brilliant performance.",
    "This made my whole family laugh and smile.",
    "A beautiful and moving story.",
]
NEGATIVE = [
    "This is awful.",
    "What a terrible waste of time.",
    "The worst film I have ever seen.",
    "I hate it, it is boring and stupid.",
    "The food was disgusting and the staff were rude.",
    "A dull, lifeless mess without a single good scene.",
    "I am deeply disappointed and want my money back.",
]


def infer(rag: Server, inputs: object) -> list:
    answer = requests.post(f"{rag.url}/infer", json={"inputs": inputs}, timeout=60)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["predictions"] if isinstance(body, dict) else body


@pytest.mark.parametrize(
    ("label", "sentence"),
    [("POSITIVE", s) for s in POSITIVE] + [("NEGATIVE", s) for s in NEGATIVE],
)
def test_an_obvious_sentence_gets_its_label(rag: Server, label: str, sentence: str) -> None:
    (row,) = infer(rag, [sentence])
    assert row["label"] == label
    assert 0.5 <= row["score"] <= 1.0


def test_many_sentences_are_answered_in_order(rag: Server) -> None:
    rows = infer(rag, [s for pair in zip(POSITIVE, NEGATIVE, strict=True) for s in pair])
    assert [row["label"] for row in rows] == ["POSITIVE", "NEGATIVE"] * len(POSITIVE)

"""text-embeddings-inference's own API, as its clients speak it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import requests
from support.server import Server


def post(rag: Server, path: str, body: Any) -> Any:
    answer = requests.post(f"{rag.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"].startswith("application/json")
    return answer.json()


def test_embed_takes_a_string_or_a_list(rag: Server) -> None:
    one = post(rag, "/embed", {"inputs": "What is a manta ray?"})
    two = post(rag, "/embed", {"inputs": ["What is a manta ray?", "Something else."]})
    assert np.shape(one) == (1, 384)
    assert np.shape(two) == (2, 384)
    assert np.dot(one[0], two[0]) > 0.9999
    assert np.linalg.norm(one[0]) == pytest.approx(1.0, abs=1e-3)


def test_embed_without_normalisation_points_the_same_way(rag: Server) -> None:
    unit = post(rag, "/embed", {"inputs": "direction", "normalize": True})[0]
    raw = post(rag, "/embed", {"inputs": "direction", "normalize": False})[0]
    length = float(np.linalg.norm(raw))
    assert abs(length - 1.0) > 0.05
    assert np.allclose(np.asarray(raw) / length, unit, atol=1e-4)


def test_embed_truncates_when_asked(rag: Server) -> None:
    long = "word " * 2000
    assert np.shape(post(rag, "/embed", {"inputs": long, "truncate": True})) == (1, 384)


def test_rerank_sorts_by_score(rag: Server) -> None:
    texts = ["Cheese is made of milk.", "Deep learning is a kind of machine learning."]
    body = {"query": "What is Deep Learning?", "texts": texts, "return_text": True}
    ranked = post(rag, "/rerank", body)
    assert [row["index"] for row in ranked] == [1, 0]
    assert ranked[0]["text"] == texts[1]
    assert ranked[0]["score"] > ranked[1]["score"]
    assert all(0.0 <= row["score"] <= 1.0 for row in ranked)


def test_rerank_raw_scores_are_logits_in_the_same_order(rag: Server) -> None:
    body = {"query": "capital of France", "texts": ["Paris is the capital of France.", "Bread."]}
    plain = post(rag, "/rerank", body)
    raw = post(rag, "/rerank", {**body, "raw_scores": True})
    assert [row["index"] for row in raw] == [row["index"] for row in plain] == [0, 1]
    assert raw[0]["score"] > 1.0 and raw[1]["score"] < 0.0
    assert all("text" not in row for row in plain)


def test_predict_names_every_label_with_its_score(rag: Server) -> None:
    one = post(rag, "/predict", {"inputs": "I like you. I love you"})
    assert {row["label"] for row in one} == {"POSITIVE", "NEGATIVE"}
    assert one[0]["label"] == "POSITIVE"
    assert sum(row["score"] for row in one) == pytest.approx(1.0, abs=1e-3)
    many = post(rag, "/predict", {"inputs": [["I love it."], ["I hate it."]]})
    assert [rows[0]["label"] for rows in many] == ["POSITIVE", "NEGATIVE"]


def test_tokenize_gives_ids_and_offsets(rag: Server) -> None:
    tokens = post(rag, "/tokenize", {"inputs": "hello world"})[0]
    assert [token["id"] for token in tokens] == [101, 7592, 2088, 102]
    assert [token["special"] for token in tokens] == [True, False, False, True]
    assert (tokens[2]["start"], tokens[2]["stop"]) == (6, 11)
    bare = post(rag, "/tokenize", {"inputs": ["hello world"], "add_special_tokens": False})[0]
    assert [token["id"] for token in bare] == [7592, 2088]


def test_info_names_the_model_and_its_limits(rag: Server) -> None:
    answer = requests.get(f"{rag.url}/info", timeout=10)
    assert answer.status_code == 200, answer.text
    info = answer.json()
    assert info["model_id"]
    assert info["max_input_length"] > 0
    assert info["max_client_batch_size"] > 0

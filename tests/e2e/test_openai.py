"""The official OpenAI client against `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import base64

import numpy as np
import openai
import pytest
from support.server import Server

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSIONS = 384


@pytest.fixture(scope="module")
def client(rag: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{rag.url}/v1", api_key="unused", max_retries=0)


def cosine(a: object, b: object) -> float:
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def test_one_string_gives_one_unit_vector(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="A manta ray.", encoding_format="float")
    assert answer.object == "list"
    assert [row.index for row in answer.data] == [0]
    assert answer.data[0].object == "embedding"
    assert len(answer.data[0].embedding) == DIMENSIONS
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1.0, abs=1e-3)


def test_a_list_gives_one_vector_per_text_in_order(client: openai.OpenAI) -> None:
    texts = ["A cat sits.", "Interest rates rose.", "A kitten is sitting down."]
    rows = client.embeddings.create(model=MODEL, input=texts).data
    assert [row.index for row in rows] == [0, 1, 2]
    cat, rates, kitten = (row.embedding for row in rows)
    assert cosine(cat, kitten) > 0.5 > 0.3 > cosine(cat, rates)


def test_token_ids_mean_the_same_as_their_text(client: openai.OpenAI) -> None:
    # [CLS] hello world [SEP] in BERT's uncased vocabulary; special tokens may be given or not.
    text = client.embeddings.create(model=MODEL, input="hello world").data[0].embedding
    ids = client.embeddings.create(model=MODEL, input=[7592, 2088]).data[0].embedding
    assert cosine(text, ids) > 0.9999
    lists = client.embeddings.create(model=MODEL, input=[[7592, 2088], [7592]]).data
    assert len(lists) == 2
    assert cosine(text, lists[0].embedding) > 0.9999 > cosine(text, lists[1].embedding)


def test_base64_carries_the_same_floats(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model=MODEL, input="same", encoding_format="float")
    packed = client.embeddings.create(model=MODEL, input="same", encoding_format="base64")
    raw = packed.data[0].embedding
    assert isinstance(raw, str), (
        "asked for base64 in so many words, the client hands it on as it is"
    )
    decoded = np.frombuffer(base64.b64decode(raw), dtype="<f4")
    assert np.allclose(decoded, floats.data[0].embedding, atol=1e-6)


def test_dimensions_shortens_and_normalises_again(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model=MODEL, input="short").data[0].embedding
    part = client.embeddings.create(model=MODEL, input="short", dimensions=64).data[0].embedding
    assert len(part) == 64
    assert np.linalg.norm(part) == pytest.approx(1.0, abs=1e-3)
    assert cosine(part, whole[:64]) > 0.9999


def test_usage_counts_tokens_with_the_special_ones(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model=MODEL, input="hello world").usage
    two = client.embeddings.create(model=MODEL, input=["hello world", "hello world"]).usage
    assert one.prompt_tokens == one.total_tokens == 4
    assert two.prompt_tokens == 8


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as caught:
        client.embeddings.create(model="no/such-model", input="x")
    assert "no/such-model" in str(caught.value)
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) >= {"message", "type"}


def test_an_empty_list_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
        client.embeddings.create(model=MODEL, input=[])


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert MODEL in [model.id for model in models]
    assert all(model.object == "model" for model in models)

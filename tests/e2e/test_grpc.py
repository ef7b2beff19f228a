"""The gRPC port: the public service with generated stubs, reflection, health, Ray's own service."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grpc
import numpy as np
import pytest
import requests
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc
from support.server import REPOSITORY, Server

SERVICE = "mobula.inference.v1.Inference"
PROTO = "mobula/inference/v1/inference.proto"
DEADLINE_S = 30


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    """The messages and the client, generated as a user would."""
    out = tmp_path_factory.mktemp("stubs")
    include = REPOSITORY / "proto"
    arguments = ["protoc", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", PROTO]
    assert protoc.main(arguments) == 0
    for folder in ("mobula", "mobula/inference", "mobula/inference/v1"):
        Path(out, folder, "__init__.py").touch()
    sys.path.insert(0, str(out))
    base = "mobula.inference.v1.inference_pb2"
    return importlib.import_module(base), importlib.import_module(f"{base}_grpc")


@pytest.fixture(scope="module")
def channel(rag: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(rag.grpc_target) as channel:
        grpc.channel_ready_future(channel).result(DEADLINE_S)
        yield channel


def client(stubs: tuple[ModuleType, ModuleType], channel: grpc.Channel):
    return stubs[1].InferenceStub(channel)


def test_embed_gives_the_vectors_of_the_http_api(rag: Server, stubs, channel) -> None:
    texts = ["What is a manta ray?", "Something else."]
    answer = client(stubs, channel).Embed(stubs[0].EmbedRequest(texts=texts), timeout=DEADLINE_S)
    http = requests.post(f"{rag.url}/embed", json={"inputs": texts}, timeout=DEADLINE_S).json()
    assert len(answer.embeddings) == 2
    for row, wanted in zip(answer.embeddings, http, strict=True):
        assert np.dot(row.values, wanted) > 0.9999
    assert answer.model and answer.tokens > 0


def test_embed_takes_dimensions(stubs, channel) -> None:
    request = stubs[0].EmbedRequest(texts=["x"], dimensions=32)
    answer = client(stubs, channel).Embed(request, timeout=DEADLINE_S)
    assert len(answer.embeddings[0].values) == 32
    assert np.linalg.norm(answer.embeddings[0].values) == pytest.approx(1.0, abs=1e-3)


def test_rerank_puts_the_answer_first(stubs, channel) -> None:
    request = stubs[0].RerankRequest(
        query="capital of France",
        texts=["Bread is baked.", "Paris is the capital of France."],
        return_texts=True,
    )
    ranks = client(stubs, channel).Rerank(request, timeout=DEADLINE_S).ranks
    assert [rank.index for rank in ranks] == [1, 0]
    assert ranks[0].text == "Paris is the capital of France."
    assert ranks[0].score > ranks[1].score


def test_classify_labels_each_text(stubs, channel) -> None:
    request = stubs[0].ClassifyRequest(texts=["I love this!", "This is awful."])
    rows = client(stubs, channel).Classify(request, timeout=DEADLINE_S).classifications
    assert [row.labels[0].name for row in rows] == ["POSITIVE", "NEGATIVE"]


def test_bad_input_is_invalid_argument(stubs, channel) -> None:
    messages, calls = stubs[0], client(stubs, channel)
    for call, request in [
        (calls.Embed, messages.EmbedRequest()),
        (calls.Rerank, messages.RerankRequest(query="x")),
        (calls.Classify, messages.ClassifyRequest()),
        (calls.Embed, messages.EmbedRequest(texts=["x"] * 20_000)),
        (calls.Embed, messages.EmbedRequest(texts=["word " * 3000], truncate=False)),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=DEADLINE_S)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details()


def test_bytes_that_are_no_message_are_invalid_argument(channel) -> None:
    call = channel.unary_unary(f"/{SERVICE}/Embed")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff\xff\xff", timeout=DEADLINE_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_method_is_refused(channel) -> None:
    for path in (f"/{SERVICE}/Nothing", "/no.such.Service/Embed"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(b"", timeout=DEADLINE_S)
        refused = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
        assert caught.value.code() in refused, path


def test_the_request_id_comes_back_in_the_trailers(stubs, channel) -> None:
    _, call = client(stubs, channel).Embed.with_call(
        stubs[0].EmbedRequest(texts=["x"]),
        metadata=[("request_id", "grpc-7"), ("application", "rag")],
        timeout=DEADLINE_S,
    )
    assert ("request_id", "grpc-7") in [tuple(pair) for pair in call.trailing_metadata()]


def test_reflection_describes_the_service(channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert {method.name for method in service.methods} == {"Embed", "Rerank", "Classify"}


def test_health_is_serving(channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=DEADLINE_S)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_rays_own_service_lists_the_applications(channel) -> None:
    # ListApplicationsResponse { repeated string application_names = 1 }, read as bare bytes.
    raw = channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")(
        b"", timeout=DEADLINE_S
    )
    assert b"\x0a\x03rag" in raw
    message = channel.unary_unary("/ray.serve.RayServeAPIService/Healthz")(b"", timeout=DEADLINE_S)
    assert message == b"\x0a\x07success"

"""gRPC calls that stream, of a service whose messages the router does not know."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest
from conftest import NewServer
from support.config import app, deployment
from support.exposition import total
from support.server import Server
from support.waiting import wait_until

SERVICE = "mobula.apps.Echo"
DEADLINE_S = 30


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    applications = [
        app("echo", "echo", "/", deployment("Echo")),
        app("other", "echo", "/other", deployment("Echo")),
    ]
    made = new_module_server()
    return made.start(made.config(applications))


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_target) as channel:
        grpc.channel_ready_future(channel).result(DEADLINE_S)
        yield channel


METADATA = [("application", "echo"), ("request_id", "stream-7"), ("multiplexed_model_id", "m1")]


class Talk:
    """The messages of a client that are sent one after the other, as the test goes on."""

    def __init__(self) -> None:
        self.messages: queue.Queue[bytes | None] = queue.Queue()

    def __iter__(self) -> Talk:
        return self

    def __next__(self) -> bytes:
        message = self.messages.get()
        if message is None:
            raise StopIteration
        return message


def in_flight(server: Server) -> float:
    return total(server.metrics(), "ray_serve_replica_processing_queries", application="echo")


def ended(server: Server, code: str) -> float:
    return total(server.metrics(), "ray_serve_num_grpc_requests_total", status_code=code)


def test_both_sides_stream_at_once(channel: grpc.Channel) -> None:
    talk = Talk()
    call = channel.stream_stream(f"/{SERVICE}/Chat")(talk, metadata=METADATA, timeout=DEADLINE_S)
    for message in [b"one", b"", bytes(range(256)) * 4096, b"four"]:
        talk.messages.put(message)
        # Each answer comes before the next message is sent.
        assert next(call) == message
    talk.messages.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK
    assert ("request_id", "stream-7") in [tuple(pair) for pair in call.trailing_metadata()]


def test_a_client_streams(channel: grpc.Channel) -> None:
    pieces = (b"%d," % number for number in range(1000))
    answer, call = channel.stream_unary(f"/{SERVICE}/Collect").with_call(
        pieces, metadata=METADATA, timeout=DEADLINE_S
    )
    assert answer == b"".join(b"%d," % number for number in range(1000))
    assert ("request_id", "stream-7") in [tuple(pair) for pair in call.trailing_metadata()]


def test_a_replica_streams(channel: grpc.Channel) -> None:
    call = channel.unary_stream(f"/{SERVICE}/Repeat")(b"x", metadata=METADATA, timeout=DEADLINE_S)
    assert list(call) == [b"x"] * 3


def test_a_unary_call_of_the_same_service_goes_as_ever(channel: grpc.Channel) -> None:
    call = channel.unary_unary(f"/{SERVICE}/Unary")
    assert call(b"hello", metadata=METADATA, timeout=DEADLINE_S) == b"hello"


def test_a_status_after_messages_ends_the_stream(channel: grpc.Channel) -> None:
    call = channel.stream_stream(f"/{SERVICE}/Chat")(
        iter([b"ok", b"fail", b"late"]), metadata=METADATA, timeout=DEADLINE_S
    )
    assert next(call) == b"ok"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "fails as told"
    assert ("request_id", "stream-7") in [tuple(pair) for pair in call.trailing_metadata()]


def test_a_deadline_ends_a_stream_that_is_open(server: Server, channel: grpc.Channel) -> None:
    talk = Talk()
    call = channel.stream_stream(f"/{SERVICE}/Chat")(talk, metadata=METADATA, timeout=1)
    talk.messages.put(b"in time")
    assert next(call) == b"in time"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    talk.messages.put(None)
    wait_until(lambda: in_flight(server) == 0, "the replica is free")


def test_a_client_that_cancels_frees_the_replica(server: Server, channel: grpc.Channel) -> None:
    before = ended(server, "CANCELLED")
    talk = Talk()
    call = channel.stream_stream(f"/{SERVICE}/Chat")(talk, metadata=METADATA)
    talk.messages.put(b"open")
    assert next(call) == b"open"
    wait_until(lambda: in_flight(server) == 1, "the replica has the call")
    call.cancel()
    talk.messages.put(None)
    wait_until(lambda: in_flight(server) == 0, "the replica is free")
    wait_until(lambda: ended(server, "CANCELLED") == before + 1, "the call is counted")


def test_an_application_has_to_be_named_where_several_have_the_method(
    channel: grpc.Channel,
) -> None:
    call = channel.stream_stream(f"/{SERVICE}/Chat")(iter([b"x"]), timeout=DEADLINE_S)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_compressed_message_is_refused_and_not_garbled(channel: grpc.Channel) -> None:
    call = channel.stream_stream(f"/{SERVICE}/Chat")(
        iter([b"x" * 10_000]),
        metadata=METADATA,
        compression=grpc.Compression.Gzip,
        timeout=DEADLINE_S,
    )
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_slow_reader_gets_everything(channel: grpc.Channel) -> None:
    sent = [bytes([number % 256]) * 100_000 for number in range(100)]
    call = channel.stream_stream(f"/{SERVICE}/Chat")(
        iter(sent), metadata=METADATA, timeout=DEADLINE_S
    )
    assert list(call) == sent

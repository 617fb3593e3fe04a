"""The proxy of the conformance kit reads what clients in any language write."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.conformance.wire import Answer, Request, close_frame, read_frame, read_request
from tests.support.edge import HOST, Raw

pytestmark = pytest.mark.anyio


async def read(data: bytes) -> list[Request | None]:
    """What a server reads of ``data``, up to its end."""
    found = list[Request | None]()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not found or found[-1] is not None:
            found.append(await read_request(reader, writer, 0.0))
        writer.close()
        done.set()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Raw(*await asyncio.open_connection(HOST, port))
        await client.send(data)
        client._writer.write_eof()
        await done.wait()
        client.leave()
    return found


async def test_bodies_with_a_length_and_in_chunks() -> None:
    one = b'POST /api/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nIdempotency-Key: "k"\r\n\r\n{}'
    other = b"POST /api/send HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nt: z\r\n\r\n"
    first, second, third, end = await read(one + other + b"GET /api/messages?limit=9 HTTP/1.1\r\n\r\n")
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.body, second.body, third.body, end) == (b"{}", b"{}", b"", None)
    assert first.sends() == [("k", "")]
    assert third.route == "GET /api/messages"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n{}",
    ],
)
async def test_what_is_no_whole_request_ends_the_connection(data: bytes) -> None:
    assert await read(data) == [None]


def request(method: str, target: str, body: object = None, **headers: str) -> Request:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request(method, target, fields, json.dumps(body).encode(), 0.0)


def test_each_message_of_a_batch_is_a_send() -> None:
    messages = [{"idempotencyKey": key, "envelope": {"recipientId": "bob", "encryptedData": key}} for key in "ab"]
    assert request("POST", "/api/send/batch", {"messages": messages}).sends() == [("a", "a"), ("b", "b")]
    assert request("POST", "/api/send/batch", {"messages": [1]}).sends() == []
    assert request("POST", "/api/messages/ack", {"messageIds": ["x", 1]}).acknowledged() == ["x"]
    assert request("POST", "/api/messages/ack", []).acknowledged() == []


def test_pages_are_kept_small_whatever_is_asked_for() -> None:
    fetch, following = request("GET", "/api/messages"), request("POST", "/api/messages/next", {"messageIds": ["x"]})
    for each in (fetch, following):
        each.limited(2)
    assert fetch.target == "/api/messages?limit=2"
    assert json.loads(following.body) == {"messageIds": ["x"], "limit": 2}


def test_the_token_is_found_where_clients_put_it() -> None:
    assert request("GET", "/connect", authorization="Bearer t").token() == "t"
    assert request("GET", "/connect", sec_websocket_protocol="bearer, t").token() == "t"
    assert request("GET", "/connect").token() == ""


def test_an_answer_is_whole_again() -> None:
    answer = Answer(200, [("content-length", "9"), ("x-request-id", "r")], b'{"messages":[{"id":"a"}]}')
    assert answer.encoded() == b"HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 25\r\n\r\n" + answer.body
    assert answer.ids() == ["a"]
    assert b"content-length" not in Answer(204, [], b"").encoded()


async def test_frames_of_every_length() -> None:
    reader = asyncio.StreamReader()
    frames = [
        b"\x81\x02{}",
        close_frame(4401),
        b"\x81\x7e\x00\x80" + bytes(128),
        b"\x81\x7f" + (70_000).to_bytes(8) + bytes(70_000),
    ]
    reader.feed_data(b"".join(frames))
    reader.feed_eof()
    assert [await read_frame(reader) for _ in frames] == list(zip((1, 8, 1, 1), frames, strict=True))
    with pytest.raises(asyncio.IncompleteReadError):
        await read_frame(reader)

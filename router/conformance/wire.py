"""HTTP/1.1 as any client speaks it, and the frames that a router sends, as far as the proxy has to know them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct

HEAD_BYTES = 1 << 20
TEXT, CLOSE = 1, 8
_HOP_BY_HOP = {"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"}


class Request(Struct):
    """A request of the client; names of header fields are lower case."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    at: float
    """Seconds since the moment began."""

    @property
    def route(self) -> str:
        """``GET /api/messages``."""
        return f"{self.method} {urlsplit(self.target).path}"

    @property
    def wants_socket(self) -> bool:
        return self.route == "GET /connect" and self.header("upgrade").lower() == "websocket"

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def token(self) -> str:
        """That of ``Authorization``, or of the subprotocols of a handshake; empty if there is none."""
        offered = [part.strip() for part in self.header("sec-websocket-protocol").split(",") if part.strip()]
        return self.header("authorization").partition(" ")[2] or (offered[-1] if offered else "")

    def acknowledged(self) -> list[str]:
        """The ids that it acknowledges."""
        if self.route not in ("POST /api/messages/ack", "POST /api/messages/next"):
            return []
        return [id_ for id_ in self._member("messageIds") if isinstance(id_, str)]

    def sends(self) -> list[tuple[str, str]]:
        """Key and ``encryptedData`` of each message that it sends."""
        if self.route == "POST /api/send":
            return [(self.header("idempotency-key").strip('"'), _text(_object(self.body), "encryptedData"))]
        if self.route != "POST /api/send/batch":
            return []
        messages = [one for one in self._member("messages") if isinstance(one, dict)]
        return [(_text(one, "idempotencyKey"), _text(one.get("envelope"), "encryptedData")) for one in messages]

    def _member(self, name: str) -> list[object]:
        found = _object(self.body).get(name)
        return found if isinstance(found, list) else []

    def limited(self, most: int) -> None:
        """Ask for ``most`` messages at most, whatever the client asked for."""
        if self.route == "GET /api/messages":
            asked = parse_qs(urlsplit(self.target).query).get("limit", ["50"])[0]
            self.target = f"/api/messages?limit={min(most, int(asked)) if asked.isdecimal() else asked}"
        elif self.route == "POST /api/messages/next":
            self.body = msgspec.json.encode({**_object(self.body), "limit": most})


class Answer(Struct):
    """What the client is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def encoded(self) -> bytes:
        """Head and body."""
        fields = [(name, value) for name, value in self.headers if name.lower() not in _HOP_BY_HOP]
        if self.status != HTTPStatus.NO_CONTENT:
            fields.append(("content-length", str(len(self.body))))
        phrase = HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def ids(self) -> list[str]:
        """Those of the page, in its order."""
        messages = _object(self.body).get("messages")
        return [_text(one, "id") for one in messages] if isinstance(messages, list) else []


def _object(body: bytes) -> dict[str, object]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(holder: object, name: str) -> str:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, str) else ""


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, since: float) -> Request | None:
    """The next request, whole; ``None`` where the client ended the connection, or speaks something else.

    ``since`` is when the moment began, by the clock of the loop.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ", 2)
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        fields = dict(headers)
        if fields.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(fields.get("content-length", "0")))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ConnectionError):
        return None
    return Request(method, target, headers, body, asyncio.get_running_loop().time() - since)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return bytes(body)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and bytes of the next frame of a router: not masked, in one piece (RFC 6455, section 5.2).

    Raises ``IncompleteReadError`` at the end of the connection.
    """
    head = await reader.readexactly(2)
    length, more = head[1] & 0x7F, b""
    if length >= 126:
        more = await reader.readexactly(2 if length == 126 else 8)
        length = int.from_bytes(more)
    return head[0] & 0x0F, head + more + await reader.readexactly(length)


def close_frame(code: int) -> bytes:
    """What a router sends to close a socket with ``code``."""
    return bytes((0x80 | CLOSE, 2)) + code.to_bytes(2)

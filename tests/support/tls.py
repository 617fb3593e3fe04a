"""TLS in front of a plain server, as a terminating proxy does it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def terminator(port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """The port of 127.0.0.1 where TLS is spoken for the plain server on ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    ends: set[asyncio.StreamWriter] = set()
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", port)
        ends.update((writer, plain_writer))
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task of its own"
        served.add(task)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, plain_writer))
            group.create_task(_copy(plain_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        address: tuple[str, int] = server.sockets[0].getsockname()
        yield address[1]
    finally:
        server.close()
        for end in ends:
            end.close()
        await asyncio.gather(*served)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other end is gone, which ends this one
    finally:
        writer.close()

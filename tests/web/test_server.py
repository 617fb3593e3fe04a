"""A port that is opened and closed in our order."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from router.core.readiness import Readiness
from router.errors import ConfigError
from router.metrics import Metrics
from router.web.application import Application
from router.web.health import Health
from router.web.transport import listeners
from router.web.transport.server import Server
from tests.support.clock import ManualClock
from tests.support.edge import server as server_of
from tests.support.servers import answers
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio
V4 = (socket.AF_INET, "127.0.0.1")
OTHER_V4 = (socket.AF_INET, "127.0.0.2")
V6 = (socket.AF_INET6, "::1")
NOT_HERE = (socket.AF_INET, "203.0.113.1")
"""An address for documentation (RFC 5737): no machine has it."""

Stands = Callable[..., None]


@pytest.fixture
def stands_for(monkeypatch: pytest.MonkeyPatch) -> Stands:
    """Makes ``localhost`` stand for these addresses, as lines of ``/etc/hosts`` do."""
    real = socket.getaddrinfo

    def resolve(*places: tuple[socket.AddressFamily, str]) -> None:
        def getaddrinfo(host: str, port: int, *more: int, **named: int) -> Sequence[tuple[object, ...]]:
            if host != "localhost":
                return real(host, port, *more, **named)
            # Twice: the system gives an address for each line that names it.
            return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in places * 2]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


def healthy(host: str, port: int = 0) -> Server:
    server = server_of(Router(Health(Readiness(ManualClock()), Metrics()).public_routes()))
    server._host, server._wanted = host, port
    return server


async def alive(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/healthz")).is_success


async def test_one_that_is_told_to_stop_before_it_serves(web: Web) -> None:
    """RACES 35: SIGTERM comes in the moment between listening and serving."""
    async with web.serve() as server:
        server.stop_listening()
    assert not answers(server.port)


async def test_a_request_that_outlasts_the_drain_is_told_to_come_again(
    web: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server cancels it when its grace is over: it is no fault of ours, and has no traceback."""
    under_way = asyncio.Event()

    async def wait(request: Request) -> Response:
        del request
        under_way.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody ends this but the server")

    edge = Application([Route("/readyz", wait)], web.context, web.clock.monotonic)
    async with httpx.AsyncClient() as http:
        async with server_of(edge, web.context) as server:
            asking = asyncio.create_task(http.get(f"http://127.0.0.1:{server.port}/readyz"))
            await under_way.wait()
        answer = await asking
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:sealed-router:problem:draining")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("places", [(V6, V4), (V4, V6), (V4, OTHER_V4)], ids=["6-4", "4-6", "4-4"])
async def test_a_name_of_several_addresses_is_listened_on_at_all(
    stands_for: Stands, places: tuple[tuple[socket.AddressFamily, str], ...]
) -> None:
    """``localhost`` on most machines: with one port, also where the system chooses it."""
    stands_for(*places)
    async with healthy("localhost") as server:
        assert server.addresses == [address for _, address in places]
        for address in server.addresses:
            assert await alive(f"http://{f'[{address}]' if ':' in address else address}:{server.port}")


async def test_an_address_that_this_machine_lacks_is_passed_over(stands_for: Stands) -> None:
    stands_for(NOT_HERE, V4)
    async with healthy("localhost") as server:
        assert server.addresses == ["127.0.0.1"]
    stands_for(NOT_HERE)
    with pytest.raises(ConfigError, match="not an address of this machine"):
        await healthy("localhost").__aenter__()


async def test_a_machine_without_ipv6(stands_for: Stands, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    stands_for(V6, V4)
    monkeypatch.setattr(socket, "socket", without)
    with listening("localhost") as addresses:
        assert addresses == ["127.0.0.1"]


async def test_a_port_that_is_taken_on_one_of_them(stands_for: Stands) -> None:
    """Half a service would answer some clients, and not others."""
    stands_for(V4, OTHER_V4)
    with socket.create_server((OTHER_V4[1], 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"localhost:{port}: the port is in use"):
            await healthy("localhost", port).__aenter__()
        with socket.socket() as free:
            free.bind((V4[1], port))


async def test_a_chosen_port_is_free_on_all_of_them(stands_for: Stands, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, tries = listeners._listener, list[int]()

    def sometimes(
        family: socket.AddressFamily, place: tuple[str, int], kind: listeners._Kind, *, alone: bool
    ) -> socket.socket:
        tries.append(place[1])
        if len(tries) == 2:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return opened(family, place, kind, alone=alone)

    stands_for(V4, OTHER_V4)
    monkeypatch.setattr(listeners, "_listener", sometimes)
    with listening("localhost") as addresses:
        assert addresses == ["127.0.0.1", "127.0.0.2"]
    assert [bool(port) for port in tries] == [False, True, False, True]


@contextmanager
def listening(host: str) -> Iterator[list[str]]:
    """The addresses that are listened on, with nobody who serves."""
    opened = listeners.listen(host, 0)
    yield [listener.getsockname()[0] for listener in opened]
    for listener in opened:
        listener.close()


async def test_a_shared_port_is_kept_and_each_process_on_it_gets_connections() -> None:
    """The one that reserves it takes none; who does not share it finds it in use, and so does another service."""
    host = V4[1]
    with ExitStack() as opened:
        for one in listeners.reserve(host, 0):
            port = opened.enter_context(one).getsockname()[1]
        both = [opened.enter_context(listeners.listen(host, port, shared=True)[0]) for _ in range(2)]
        for other in (listeners.listen, listeners.reserve):
            with pytest.raises(ConfigError, match="the port is in use"):
                other(host, port)
        for _ in range(64):
            opened.enter_context(socket.create_connection((host, port)))
        accepted = [sum(1 for _ in _accepted(one)) for one in both]
    assert sum(accepted) == 64
    assert min(accepted) > 0


def _accepted(listener: socket.socket) -> Iterator[None]:
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            yield

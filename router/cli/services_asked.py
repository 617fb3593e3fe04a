"""What the running services tell on their admin ports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import httpx
import msgspec
from msgspec import Struct

from router import proxies
from router.config import Config, address
from router.config.loader import ADMIN_PORTS
from router.core.readiness import Failed, State
from router.core.status import Status, status
from router.workers.metric_sums import summed

ANSWER_SECONDS = 5.0
"""A service asks its own dependencies for 3 s."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a service that listens there is asked on loopback
OURS = "router_build_info"


class Asked(Struct, frozen=True):
    """What became of the questions."""

    answered: list[str]
    """URLs of the services that answered."""
    problems: dict[str, str]
    """By URL: why one that should answer does not."""
    status: Status | None
    """Of all services that answered, as one."""


class _Readiness(Struct):
    """The answer of ``/readyz``, ready or not."""

    type: str = ""
    failed: list[Failed] = []
    limited: list[str] = []


def admin_urls(config: Config) -> list[str]:
    """Where the services of this machine have their admin ports, by the configuration: one of each if none is set."""
    server = config.server
    ports = {server.admin_port}
    if "admin_port" not in server.model_fields_set:
        ports |= set(ADMIN_PORTS.values())
    host = EVERYWHERE.get(server.admin_host, server.admin_host)
    return [address("http", host, port) for port in sorted(ports)]


async def ask(http: httpx.AsyncClient, urls: Sequence[str], *, each: bool) -> Asked:
    """What the services at these ``urls`` tell now. ``each``: all should answer, and else one that does is enough."""
    told = await asyncio.gather(*(_ask(http, url) for url in urls))
    found = {url: each for url, each in zip(urls, told, strict=True) if not isinstance(each, str)}
    problems = {url: each for url, each in zip(urls, told, strict=True) if isinstance(each, str)}
    merged = None
    if found:
        metrics = summed(exposition for exposition, _ in found.values())
        merged = status(metrics, _together(state for _, state in found.values()))
    return Asked(list(found), problems if each or not found else {}, merged)


def client() -> httpx.AsyncClient:
    return proxies.client(timeout=ANSWER_SECONDS, follow_redirects=False)


async def _ask(http: httpx.AsyncClient, url: str) -> tuple[str, State] | str:
    """Metrics and state of the service there, or why there are none."""
    try:
        metrics, ready = await asyncio.gather(http.get(f"{url}/metrics"), http.get(f"{url}/readyz"))
        if not metrics.is_success or OURS not in metrics.text:
            return f"what answers there (status {metrics.status_code}) is not the admin port of a router"
        return metrics.text, _state(ready)
    except httpx.TimeoutException:
        return f"no answer within {ANSWER_SECONDS:.0f} s"
    except httpx.ConnectError:
        return "nothing listens there"
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
        return str(error) or type(error).__name__


def _state(ready: httpx.Response) -> State:
    said = msgspec.json.decode(ready.content, type=_Readiness)
    return State(draining=said.type.endswith(":draining"), failed=said.failed, limited=said.limited)


def _together(states: Iterable[State]) -> State:
    """Of several services: what one lacks, all lack."""
    draining, failed, limited = False, list[Failed](), list[str]()
    for state in states:
        draining = draining or state.draining
        failed += [one for one in state.failed if one not in failed]
        limited += [one for one in state.limited if one not in limited]
    return State(draining, failed, limited)

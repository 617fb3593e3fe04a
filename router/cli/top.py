"""``router top``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from router.cli.common import configured, now, timestamp
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import json_document, line, on_terminal, show
from router.config import Config
from router.config.combinations import is_url
from router.config.roles import Role
from router.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from router.cli.inspection import OldQueue, Overview
    from router.cli.services_asked import Asked
    from router.cli.top_view import Top
    from router.core.status import Counts
    from router.factory import Factory

RATE_SECONDS = 1.0
"""Between the two looks of a single snapshot."""
RANKED = 100
"""Queues that a terminal may show."""
SHARE = 10
"""The stores are read again after this number of times what it took: for at most a tenth of the time."""
REMOTE_SECONDS = 10.0
"""Where reading costs calls to another machine, which may be billed: no more often than this."""


def top(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print one snapshot, as in a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one snapshot as JSON.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="Pause between two looks on a terminal.")
    ] = 2.0,
    urls: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Admin port of a service to ask, such as http://10.0.0.7:8084; may be repeated. "
            "Default: server.admin_port on this machine, or 8084, 8085 and 8086 if that is not set.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of queues in a snapshot.")] = 10,
) -> None:
    """Watch rates, queues, connections and outages.

    The rates are those of the services whose admin ports answer: what they accept, return to fetches and see
    acknowledged in a second, the push commands they publish, what they refuse, and answers of 500 and more. Queues and
    connections are read from the stores, so they are shown for all nodes, also while no service answers.

    Keys: o shows the queues whose first message has waited longest, l those with the most messages, p or space
    pauses, q quits. In a pipe, with --once or with --json it prints one snapshot, after a look of one second.

    A snapshot exits with 69 if no service or a store does not answer; it says which ports were asked, and shows what is
    known.

    Example:

      router top
      router top --once --url http://10.0.0.7:8084 --url http://10.0.0.8:8084
      router top --json | jq .rates.accepted
    """
    config = configured(ctx)
    for url in urls or []:
        if not is_url(url, "http", "https"):
            raise typer.BadParameter(f"{url!r} is not an http:// or https:// URL", param_hint="--url")
    from router.cli import services_asked  # noqa: PLC0415 - brings httpx

    named = [url.rstrip("/") for url in urls or []]
    asked = Questions(named or services_asked.admin_urls(config), each=bool(named))
    look_at(config, Role.INGRESS, Role.ONLINE, Role.COLD)
    if as_json or once or not on_terminal():
        found = asyncio.run(_snapshot(config, asked, limit))
        if as_json:
            json_document(found)
        else:
            _print(found, limit)
        if found.service is None or found.stores_problem:
            raise typer.Exit(Code.UNAVAILABLE)
    else:
        asyncio.run(_live(config, asked, interval))


class Questions(Struct, frozen=True):
    """Which admin ports are asked."""

    urls: list[str]
    each: bool
    """All should answer."""


async def _snapshot(config: Config, asked: Questions, limit: int) -> Top:
    async with _looker(config, asked, limit) as looker:
        await looker.look()
        await asyncio.sleep(RATE_SECONDS)
        return await looker.look()


@contextlib.asynccontextmanager
async def _looker(config: Config, asked: Questions, limit: int) -> AsyncIterator[Looker]:
    from router.cli.services_asked import client  # noqa: PLC0415
    from router.factory import Factory  # noqa: PLC0415

    async with client() as http, Factory(config, make=False) as factory:

        async def ask() -> Asked:
            from router.cli.services_asked import ask  # noqa: PLC0415

            return await ask(http, asked.urls, each=asked.each)

        yield Looker(ask, asked.urls, Stores(factory, limit))


class Stores:
    """Reads the stores, no more often than is cheap. State: what they held at the last look, and when that was."""

    def __init__(self, factory: Factory, limit: int) -> None:
        self._factory = factory
        self._limit = limit
        self._again_at = 0.0
        self.queues: Overview | None = None
        self.longest: list[OldQueue] = []
        self.problem: str | None = None

    async def look(self) -> None:
        from router.cli.inspection import longest, overview  # noqa: PLC0415

        began = monotonic()
        if began < self._again_at:
            return
        try:
            self.queues = await overview(self._factory, self._limit)
            self.longest = await longest(self._factory, self._limit)
            self.problem = None
        except Unavailable as error:
            self.problem = str(error)
        backends = self._factory.backends
        pause = 0.0 if backends.online().local and backends.cold().local else REMOTE_SECONDS
        self._again_at = monotonic() + max(pause, SHARE * (monotonic() - began))


class Looker:
    """Looks at services and stores. State: what the services had counted at the last look, and when that was."""

    def __init__(self, ask: Callable[[], Awaitable[Asked]], urls: list[str], stores: Stores) -> None:
        self._ask = ask
        self._urls = urls
        self._stores = stores
        self._before: tuple[float, list[str], Counts] | None = None

    async def look(self) -> Top:
        from router.cli.top_view import Top  # noqa: PLC0415

        asked, _ = await asyncio.gather(self._ask(), self._stores.look())
        stores = self._stores
        return Top(
            at=timestamp(now()),
            asked=self._urls,
            answered=asked.answered,
            problems=asked.problems,
            service=asked.status,
            rates=self._rates(asked),
            stores_problem=stores.problem,
            queues=stores.queues,
            longest=stores.longest,
        )

    def _rates(self, asked: Asked) -> Counts | None:
        """Since the last look, if the same services answered."""
        from router.core.status import rates  # noqa: PLC0415

        at, before = monotonic(), self._before
        self._before = None if asked.status is None else (at, asked.answered, asked.status.counts)
        if asked.status is None or before is None or before[1] != asked.answered:
            return None
        return rates(before[2], asked.status.counts, at - before[0])


def _print(found: Top, limit: int) -> None:
    from router.cli.top_view import Order, head, more, table  # noqa: PLC0415

    for each in head(found):
        line(each.text)
    line("")
    show([table(found, order, limit) for order in Order])
    if left := more(found, min(limit, len(found.longest))):
        line(f"\n{left}; see --limit")


# On a terminal.


async def _live(config: Config, asked: Questions, interval: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    events: asyncio.Queue[str | Top] = asyncio.Queue()
    console = Console()
    async with _looker(config, asked, RANKED) as looker:
        with _keys(events), Live(Text("looking ..."), console=console, auto_refresh=False, screen=True) as live:
            looking = asyncio.create_task(_look(looker, events, interval))
            drawing = asyncio.create_task(_draw(live, console, events))
            try:
                await asyncio.wait([looking, drawing], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (looking, drawing):
                    task.cancel()
                ended = await asyncio.gather(looking, drawing, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each


async def _look(looker: Looker, events: asyncio.Queue[str | Top], interval: float) -> None:
    while True:
        events.put_nowait(await looker.look())
        await asyncio.sleep(interval)


async def _draw(live: Live, console: Console, events: asyncio.Queue[str | Top]) -> None:
    """Until somebody quits. While it is paused, what was last seen stays."""
    from router.cli.top_view import Order, screen  # noqa: PLC0415

    shown: Top | None = None
    order, paused = Order.OLDEST, False
    while (event := await events.get()) != "q":
        match event:
            case "o":
                order = Order.OLDEST
            case "l":
                order = Order.LONGEST
            case "p" | " ":
                paused = not paused
            case str():
                continue
            case _ if not paused:
                shown = event
        if shown is not None:
            size = console.size
            drawn = screen(shown, order, paused=paused, width=size.width, height=size.height)
            live.update(drawn, refresh=True)


@contextlib.contextmanager
def _keys(events: asyncio.Queue[str | Top]) -> Iterator[None]:
    """Put what is typed among the ``events``, without waiting for the end of a line, if somebody can type."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - where there is a terminal, there is this
    import tty  # noqa: PLC0415

    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def typed() -> None:
        for key in (data := os.read(terminal, 64)).decode("ascii", "replace").lower():
            events.put_nowait(key)
        if not data:
            loop.remove_reader(terminal)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, typed)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)

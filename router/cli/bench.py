"""``router bench``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.bench.marks import LEAST_BYTES, Marks
from router.bench.pace import Pace
from router.cli.bench_tables import tables, verdict
from router.cli.bench_users import PEOPLE, made_up, of_file
from router.cli.client_options import Teller, Url, api_url, socket_url
from router.cli.common import configured, now, timestamp
from router.cli.exits import Code
from router.cli.output import json_document, line, progress, show

if TYPE_CHECKING:
    from router.bench.load import Cast, Load, Plan
    from router.bench.report import Report

SECONDS = 10.0
LOOK_SECONDS = 0.1
MIB = 1024 * 1024


def bench(
    ctx: typer.Context,
    people: Annotated[
        int | None, typer.Option(min=1, max=1000, help=f"Number of recipients. Default: {PEOPLE}.", show_default=False)
    ] = None,
    offline: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Share of the recipients that stay offline until all messages are sent."
        ),
    ] = 0.0,
    senders: Annotated[int, typer.Option(min=1, max=256, help="Number of concurrent senders.")] = 8,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help=f"How long to send. Default: {SECONDS:g}, or no limit with --messages."),
    ] = None,
    messages: Annotated[int | None, typer.Option(min=1, help="Stop after this many messages.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Messages to send per second. Default: each sender sends as soon as it is answered."
        ),
    ] = None,
    size: Annotated[
        int, typer.Option("--bytes", min=LEAST_BYTES, max=16 * MIB, help="Size of the opaque fields of each message.")
    ] = 1024,
    patience: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="Count outstanding messages as lost after this long without progress."
        ),
    ] = 30.0,
    tokens: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='File with one "USER TOKEN" per line. Default: generated users.'),
    ] = None,
    url: Url = None,
    ws_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the WebSocket. Default: <URL>/connect with --url, else as configured."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Load a running router and check that it keeps its promises.

    The command generates users for the run. Recipients connect, fetch on each poke, save (in memory) and
    acknowledge. It checks every message: lost, out of order, under a second id, returned after its
    acknowledgement, delivered to somebody else, or altered. It touches nobody else's mail and leaves nothing behind.

    With --rate, each message is due at a fixed moment, and its latency counts from that moment, even if no sender
    was free then. If tokens come from an identity service, users cannot be generated: name a file of them with
    --tokens, and choose users who get no other mail.

    Ctrl-C stops sending, receives what is under way, and prints the report. A second Ctrl-C ends the command at
    once; it then prints what is left in the router. Exits with 12 if a promise was broken.

    Example:

      router bench
      router bench --rate 200 --seconds 60 --offline 0.25
      router bench --url https://router.example --tokens users.txt --messages 1000 --json
    """
    config = configured(ctx)
    target, ws_target = api_url(config, url), socket_url(config, url, ws_url)
    marks = Marks(size)
    if tokens is None:
        cast = made_up(config, marks.run.hex(), people, offline, senders)
    else:
        cast = of_file(tokens, people, offline, senders)
    if seconds is None and messages is None:
        seconds = SECONDS
    from router.bench.load import Plan  # noqa: PLC0415 - brings httpx and websockets

    plan = Plan(target, ws_target, Pace(messages, seconds, rate), size, patience)
    try:
        report, load = _run(plan, cast, marks)
    except asyncio.CancelledError:
        raise typer.Exit(Code.INTERRUPTED) from None
    _end(report, load, as_json=as_json)


def _end(report: Report, load: Load, *, as_json: bool) -> None:
    """Print the report, and exit as it says."""
    if not report.messages.accepted and not report.interrupted:
        raise load.failure()
    if as_json:
        json_document(report)
    else:
        show(tables(report))
        line(f"\n{verdict(report)}")
    if not report.held:
        raise typer.Exit(Code.BROKEN_PROMISE)
    if load.refusal is not None:
        raise load.refusal
    if report.interrupted:
        raise typer.Exit(Code.INTERRUPTED)


def _run(plan: Plan, cast: Cast, marks: Marks) -> tuple[Report, Load]:
    import uvloop  # noqa: PLC0415

    from router.bench.load import loading  # noqa: PLC0415 - brings httpx and websockets
    from router.bench.report import report  # noqa: PLC0415

    async def run() -> tuple[Report, Load]:
        started_at = timestamp(now())
        async with loading(plan, cast, marks, Teller().trouble) as load:
            with _left_is_told(load), _interruptible(load) as interrupted:
                with _bar("sending", plan.pace) as advance:
                    await _shown(load.send, advance, _sending(load))
                with progress("receiving", "messages", load.left, quiet=not load.left) as advance:
                    await _shown(load.receive, advance, lambda: load.saved)
            found = report(load, marks.run.hex(), started_at, interrupted=interrupted())
        return found, load

    return uvloop.run(run())


@contextlib.contextmanager
def _interruptible(load: Load) -> Iterator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM ends the sending, the second ends all; tells whether there was one."""
    loop, whole = asyncio.get_running_loop(), asyncio.current_task()
    assert whole is not None
    count = 0

    def interrupt() -> None:
        nonlocal count
        count += 1
        load.stop()
        if count == 1:
            typer.echo("stopped sending; receiving what is under way (Ctrl-C again ends at once)", err=True)
        else:
            whole.cancel()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield lambda: count > 0
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _left_is_told(load: Load) -> Iterator[None]:
    """Where the run does not come to its end, say what it leaves in the router."""
    ended = False
    try:
        yield
        ended = True
    finally:
        if not ended and load.left:
            users = [one.mailbox.person.user for one in load.recipients if one.mailbox.ledger.left]
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            typer.echo(f"left in the router: {load.left} messages, of {users[0]}{more}", err=True)


def _bar(title: str, pace: Pace) -> contextlib.AbstractContextManager[Callable[[int], None] | None]:
    if pace.messages is not None:
        return progress(title, "messages", pace.messages)
    return progress(title, "seconds", round(pace.seconds or 0))


def _sending(load: Load) -> Callable[[], int]:
    """How far the sending is, in the unit of its bar."""
    if load.plan.pace.messages is not None:
        return lambda: load.accepted
    return lambda: int(load.running_seconds)


async def _shown(
    work: Callable[[], Awaitable[None]], advance: Callable[[int], None] | None, done: Callable[[], int]
) -> None:
    """Do ``work``, and meanwhile advance a bar to ``done``."""
    before = done()

    async def look() -> None:
        shown = before
        while advance is not None:
            await asyncio.sleep(LOOK_SECONDS)
            advance((at := done()) - shown)
            shown = at

    looking = asyncio.create_task(look())
    try:
        await work()
    finally:
        looking.cancel()

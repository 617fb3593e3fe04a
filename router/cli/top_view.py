"""What ``router top`` shows: its records, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from router.cli.inspection import OldQueue, Overview
from router.cli.output import Table, counted, size, span
from router.core.status import Counts, Status

KEYS = "[o]ldest  [l]ongest  [p]ause  [q]uit"
SHORTEST = 3
"""Rows of queues, however low the window is."""
RATES = (
    ("accepted", "accepted"),
    ("fetched", "fetched"),
    ("acknowledged", "acknowledged"),
    ("pushed", "pushed"),
    ("refused", "refused"),
    ("errors", "5xx"),
)


class Order(StrEnum):
    """Which queues come first."""

    OLDEST = "oldest"
    LONGEST = "longest"


class Top(Struct, frozen=True):
    """``top --json``."""

    at: str
    asked: list[str]
    """The admin ports that were asked."""
    answered: list[str]
    """Those at which a service answered."""
    problems: dict[str, str]
    """By URL: why one does not answer that should. Of the default ports, one that answers is enough."""
    service: Status | None
    """What the services that answered tell, as one."""
    rates: Counts | None
    """In a second, between two looks at these services."""
    stores_problem: str | None
    """Why the stores could not be read; then ``queues`` is null, or of an earlier look."""
    queues: Overview | None
    """What the stores hold, as ``inspect-queue --json`` tells it."""
    longest: list[OldQueue]
    """The queues with the most messages; those whose first message has waited longest are in ``queues.oldest``."""


class Line(Struct, frozen=True):
    """A line of the head, and how it is to be drawn."""

    text: str
    style: str = ""


def head(top: Top) -> list[Line]:
    """What stands above the queues."""
    return [*_service(top), *_outages(top), *_rates(top), *_now(top)]


def _service(top: Top) -> list[Line]:
    silent = [Line(f"{url}: {problem}", "bold red") for url, problem in top.problems.items()]
    if top.service is None:
        return [Line("no service answers on server.admin_port, so there are no rates; asked:", "bold red"), *silent]
    told = top.service
    state = "draining" if told.draining else "ready" if told.ready else "NOT READY"
    style = "bold green" if state == "ready" and not told.failed else "bold red"
    return [Line(f"{state}: {', '.join(told.services)} at {', '.join(top.answered)}", style), *silent]


def _outages(top: Top) -> list[Line]:
    failed = top.service.failed if top.service else []
    lines = [Line(f"outage: {each['dependency']} ({each['kind']}) does not work", "bold red") for each in failed]
    lines += [Line(f"not served: {each}", "yellow") for each in (top.service.limited if top.service else [])]
    if top.stores_problem:
        lines.append(Line(f"the stores cannot be read: {top.stores_problem}", "bold red"))
    return lines


def _rates(top: Top) -> list[Line]:
    if top.rates is None:
        return []
    return [Line("per second: " + "  ".join(f"{name} {_rate(getattr(top.rates, what))}" for what, name in RATES))]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _now(top: Top) -> list[Line]:
    if (queues := top.queues) is None:
        return []
    letters = "" if queues.dead_letters is None else f", {counted(queues.dead_letters, 'dead letter')}"
    online = f"{counted(queues.connections, 'connection')} of {counted(queues.online_users, 'user')}{letters}"
    shares = (("ingress", queues.ingress), ("hot", queues.hot), ("cold", queues.cold))
    held = [f"{name} {share.messages:,} ({size(share.bytes)})" for name, share in shares if share is not None]
    return [Line(online), Line("queued: " + "  ".join(held))]


def ranked(top: Top, order: Order) -> Sequence[OldQueue]:
    """The queues in this order."""
    if order is Order.LONGEST:
        return top.longest
    return top.queues.oldest if top.queues else []


def more(top: Top, shown: int) -> str:
    """How many queues are not among those ``shown``."""
    if top.queues is None:
        return ""
    users = (top.queues.hot.users, top.queues.cold.users)
    known = max(len(top.queues.oldest), len(top.longest))
    total = known if None in users else max(known, sum(filter(None, users)))
    return f"{total - shown:,} more" if total > shown else ""


def table(top: Top, order: Order, rows: int) -> Table:
    """The first queues in this order."""
    shown = [
        [queue.user, queue.tier, f"{queue.messages:,}", size(queue.bytes), span(queue.age_seconds)]
        for queue in ranked(top, order)[:rows]
    ]
    title = "Oldest queues" if order is Order.OLDEST else "Longest queues"
    return Table(title, ["user", "tier", "messages", "size", "oldest"], shown, "nothing is queued")


def screen(top: Top, order: Order, *, paused: bool, width: int, height: int) -> Any:
    """All of it for rich, in no more than ``height`` lines of ``width``."""
    from rich.console import Group  # noqa: PLC0415 - only a terminal needs it
    from rich.text import Text  # noqa: PLC0415

    lines = [Line(f"router top  {top.at[11:19]}{'  PAUSED' if paused else ''}", "bold"), *head(top)]
    rows = max(SHORTEST, height - len(lines) - 3)
    lines = lines[: max(1, height - rows - 3)]
    queues = table(top, order, rows)
    foot = "   ".join(filter(None, [more(top, len(queues.rows)), KEYS]))
    drawn = [Text(line.text, line.style, no_wrap=True, overflow="ellipsis") for line in lines]
    end = Text(foot, "dim", no_wrap=True, overflow="ellipsis")
    return Group(*drawn, Text(queues.title, "bold"), _drawn(queues, width), end)


def _drawn(queues: Table, width: int) -> Any:
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not queues.rows:
        return Text(queues.empty)
    drawn = RichTable(box=None, width=width, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for number, column in enumerate(queues.columns):
        left = number < 2
        drawn.add_column(
            column, ratio=1 if number == 0 else None, justify="left" if left else "right", no_wrap=True,
            overflow="ellipsis",
        )  # fmt: skip
    for row in queues.rows:
        drawn.add_row(*map(Text, row))
    return drawn

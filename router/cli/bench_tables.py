"""What a person sees of a report of ``bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from router.cli.output import Table, size

if TYPE_CHECKING:
    from router.bench.report import Percentiles, Report

BUSY = 0.8
"""A load that takes more of a core than this measures itself too."""
STAGES = {"accepted": "until accepted (202)", "poked": "until poked", "saved": "until saved and acknowledged"}
PROMISES = {
    "lost": "lost",
    "out_of_order": "out of order",
    "second_id": "under a second id",
    "came_back": "back after acknowledgement",
    "somebody_elses": "somebody else's",
    "altered": "altered",
}


def tables(report: Report) -> list[Table]:
    """Rates, latencies, refusals, promises."""
    latency = [[words, *_cells(getattr(report.latency, stage))] for stage, words in STAGES.items()]
    refusals = [[one.route, str(one.status or "no answer"), one.reason, f"{one.tries:,}"] for one in report.refusals]
    broken = [[words, str(getattr(report.promises, promise))] for promise, words in PROMISES.items()]
    return [
        Table(_title(report), ["messages", "count", "a second"], _counts(report)),
        Table("Latency", ["from when it was due", "p50", "p90", "p99", "max"], latency),
        Table("Failed attempts", ["route", "status", "reason", "attempts"], refusals),
        Table("Promises", ["messages", "broken"], broken),
    ]


def _title(report: Report) -> str:
    pace = f"{report.rate:g} a second" if report.rate else "as fast as the router answers"
    away = f", {report.offline} of them offline" if report.offline else ""
    return (
        f"{report.url}: {report.senders} senders to {report.people} people{away}, "
        f"{size(report.message_bytes)} each, {pace}, for {report.seconds:.1f} s"
    )


def _counts(report: Report) -> list[list[str]]:
    messages, rates, cold = report.messages, report.per_second, report.cold
    rows = [
        ["offered", f"{messages.offered:,}", f"{rates.offered:,.1f}"],
        ["accepted", f"{messages.accepted:,}", f"{rates.accepted:,.1f}"],
        ["saved, online", f"{messages.saved - (cold.messages if cold else 0):,}", f"{rates.saved:,.1f}"],
    ]
    if cold:
        rows.append(["saved, from offline", f"{cold.messages:,}", f"{cold.per_second:,.1f}"])
    more = {
        "unsent: no sender was free": messages.unsent,
        "given up: not accepted in time": messages.given_up,
        "redelivered (allowed)": messages.redelivered,
        "left in the router": messages.left,
        "reconnections": report.reconnections,
        "from others, left alone": report.foreign,
    }
    return rows + [[words, f"{count:,}", ""] for words, count in more.items() if count]


def _cells(percentiles: Percentiles | None) -> list[str]:
    if percentiles is None:
        return ["-"] * 4
    return [f"{1000 * seconds:,.1f} ms" for seconds in msgspec.structs.astuple(percentiles)]


def verdict(report: Report) -> str:
    """The last lines: what was broken, with examples; and what the figures are worth."""
    lines = []
    if report.cpu_share > BUSY:
        lines.append(
            f"The load generator itself used {report.cpu_share:.0%} of a core, which affects these figures. To measure "
            "latencies, set a lower rate with --rate."
        )
    broken = [f"{count:,} {PROMISES[name]}" for name, count in msgspec.structs.asdict(report.promises).items() if count]
    if broken:
        lines += ["BROKEN: " + ", ".join(broken), *(f"  {example}" for example in report.examples)]
    else:
        lines.append(f"Every promise held: {report.messages.saved:,} messages arrived, once, in order.")
    return "\n".join(lines)

"""The report as one page that needs nothing but itself: style and charts are in it, scripts there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from tests.chaos import charts
from tests.chaos.report import PROMISES, Report, fault_rows, seconds, verdict

GOALS = {
    "lost": ("accepted is durable", "at least once"),
    "reordered": ("in order",),
    "second ids": ("one id for life",),
    "strangers' mail": ("nobody else's mail",),
    "acknowledged and back": ("acknowledged stays away",),
    "other violations": ("nothing is stuck", "ephemeral", "sealed as sent", "within the limit", "sound"),
}
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
KINDS = {
    "kill": "SIGKILL, then started again",
    "stop": "SIGTERM, then started again",
    "pause": "SIGSTOP, then SIGCONT",
    "cut": "every connection broken",
    "drop": "a third of them broken",
    "hush": "nothing gets through",
}


def html(report: Report) -> str:
    """The whole document."""
    name = f"Chaos: {report.topology}, seed {report.seed}"
    body = "".join(
        (_head(report), _tiles(report), _timeline(report), _recovery(report), _tables(report), _broken(report))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(report: Report) -> str:
    mood = "bad" if report.violations else "good"
    return (
        f"<header><h1>Chaos, {escape(report.topology)}</h1>"
        f'<span class="verdict {mood}">{escape(verdict(report))}</span>'
        f'<p class="meta">{len(report.faults)} faults in {report.seconds / 60:g} min, seed {report.seed}, '
        f"{escape(report.day)}, {escape(report.machine)}</p></header>"
    )


def _tiles(report: Report) -> str:
    counts, broken = report.counts, report.broken
    tiles = []
    for words, promises in GOALS.items():
        found = sum(broken[promise] for promise in promises)
        tiles.append(_tile(str(found), words, "bad" if found else "good"))
    figures = {
        "messages accepted": f"{counts.accepted:,}",
        "delivered": f"{counts.delivered:,}",
        "redeliveries, same id": f"{counts.redeliveries:,}",
        "requests that failed": f"{counts.tries_failed:,}",
        "delivery, p50": seconds(report.delivery_p50),
        "delivery, p99": seconds(report.delivery_p99),
    }
    tiles += [_tile(value, words, "") for words, value in figures.items()]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(value: str, words: str, mood: str) -> str:
    return f'<div class="tile {mood}"><b>{escape(value)}</b><span>{escape(words)}</span></div>'


def _timeline(report: Report) -> str:
    curves = {"accepted": "accepted", "delivered": "delivered", "failed": "requests that failed", "longest": "longest"}
    key = _key({**curves, "median": "p50"}) + _key(KINDS)
    return _section(
        "The run",
        "Delivery is from the first try to send until a device has it, of messages to users of whom one device stays "
        "connected.",
        f'{key}<div class="scroll">{charts.timeline(report)}</div>',
    )


def _recovery(report: Report) -> str:
    return _section(
        "Time to recover",
        "From the beginning of a fault, or from the sending if that was later, until everything was delivered that was "
        "under way or was sent within the next second. A dot is one fault, a stroke the median; faults overlap, so a "
        "dot may be the work of another one.",
        f'<div class="scroll">{charts.recoveries(report)}</div>',
    )


def _key(names: dict[str, str]) -> str:
    items = "".join(
        f'<li><i style="background:var(--{kind})"></i>{escape(words)}</li>' for kind, words in names.items()
    )
    return f'<ul class="key">{items}</ul>'


def _tables(report: Report) -> str:
    columns = ("fault", "count", "lasted, p50", "recovered, p50", "max")
    faults = _section("Faults", "", _table(columns, fault_rows(report)))
    counts = report.counts
    rows = [[name.replace("_", " "), f"{getattr(counts, name):,}"] for name in counts.__struct_fields__]
    figures = _section("Counts", "", _table(("", ""), rows))
    found = [[promise, PROMISES.get(promise, ""), str(count)] for promise, count in report.broken.items()]
    promises = _section("Promises", "", f'<div class="words">{_table(("promise", "broken", "found"), found)}</div>')
    return f'<div class="pair">{faults}{figures}</div>{promises}'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(name: str, words: str, inside: str) -> str:
    said = f"<p>{escape(words)}</p>" if words else ""
    return f"<section><h2>{escape(name)}</h2>{said}{inside}</section>"


def _broken(report: Report) -> str:
    parts = []
    for one in report.violations:
        lines = "\n".join(one.history)
        parts.append(_section(f"{one.promise}, at {one.at:.3f} s", one.text, f"<pre>{escape(lines)}</pre>"))
    return "".join(parts)

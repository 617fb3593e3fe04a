"""Charts as inline SVG: classes instead of colours, so that the page's style sheet knows light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tests.chaos.report import BUCKET_SECONDS, Moment, Report, Strike, quantile, seconds

WIDTH, LEFT, RIGHT = 1000, 160, 22
ROW, GAP = 20, 34
PANEL = 150
LEAST_WIDTH = 3.0
DECADES = (0.01, 0.1, 1.0, 10.0, 100.0)


class Scale:
    """From ``low`` to ``high`` onto ``start`` to ``end`` pixels; values beyond are put on the edge."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self._turn = math.log10 if log else float
        self._low, self._high = self._turn(low), self._turn(high)
        self._lowest, self._highest = low, high
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        kept = min(max(value, self._lowest), self._highest)
        share = (self._turn(kept) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)


def timeline(report: Report) -> str:
    """Throughput, the faults, and delivery times over one axis of time."""
    end = max([report.seconds, *(moment.at + BUCKET_SECONDS for moment in report.timeline)])
    across = Scale(0.0, end, LEFT, WIDTH - RIGHT)
    targets = _targets(report.faults)
    lanes_top = PANEL + GAP + 10
    waits_top = lanes_top + ROW * len(targets) + GAP
    height = waits_top + PANEL + 34
    calm = across(report.seconds)
    parts = [
        f'<rect class="calm" x="{calm}" y="10" width="{WIDTH - RIGHT - calm:.1f}" height="{height - 44}"/>',
        f'<text class="tick" x="{calm + 4}" y="20">no more faults</text>' if end - report.seconds > end / 12 else "",
        *_throughput(report.timeline, across, 10, 10 + PANEL),
        *_lanes(report.faults, targets, across, lanes_top),
        *_waits(report.timeline, across, waits_top, waits_top + PANEL),
        *_minutes(end, across, height - 16),
    ]
    return _svg(height, "Messages a second, faults and delivery times over the run", parts)


def _targets(faults: Iterable[Strike]) -> list[str]:
    return sorted({strike.target for strike in faults if strike.group != "topology"})


def _throughput(moments: Sequence[Moment], across: Scale, top: float, bottom: float) -> list[str]:
    rates = [(moment.accepted, moment.delivered, moment.failed) for moment in moments]
    most = _round_up(max((max(rate) for rate in rates), default=1) / BUCKET_SECONDS)
    up = Scale(0.0, most, bottom, top)
    parts = [_name("messages per s", top)]
    for value in (0.0, most / 2, most):
        parts += _line_across(up(value), f"{value:g}")
    for index, kind in enumerate(("accepted", "delivered", "failed")):
        points = [(across(m.at), up(rate[index] / BUCKET_SECONDS)) for m, rate in zip(moments, rates, strict=True)]
        parts.append(_path(points, kind))
    return parts


def _lanes(faults: Sequence[Strike], targets: Sequence[str], across: Scale, top: float) -> list[str]:
    parts = []
    for row, target in enumerate(targets):
        middle = top + row * ROW + ROW / 2
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{middle + 4}">{escape(target)}</text>')
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle}" y2="{middle}"/>')
    bottom = top + ROW * len(targets)
    for strike in faults:
        begin = across(strike.began)
        tip = f"<title>{escape(_tip(strike))}</title>"
        if strike.group == "topology":
            parts.append(f'<line class="reshape" x1="{begin}" x2="{begin}" y1="{top}" y2="{bottom}">{tip}</line>')
            continue
        width = max(LEAST_WIDTH, across(strike.ended) - begin)
        y = top + targets.index(strike.target) * ROW + 4
        parts.append(
            f'<rect class="{escape(strike.kind)}" x="{begin}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="2">'
            f"{tip}</rect>"
        )
    return parts


def _tip(strike: Strike) -> str:
    return f"{strike.kind} {strike.target} at {strike.began:.1f} s for {seconds(strike.ended - strike.began)}; " + (
        f"recovered after {seconds(strike.recovered)}" if strike.recovered is not None else "not recovered"
    )


def _waits(moments: Sequence[Moment], across: Scale, top: float, bottom: float) -> list[str]:
    up = Scale(DECADES[0], DECADES[-1], bottom, top, log=True)
    parts = [_name("time to delivery", top)]
    for value in DECADES:
        parts += _line_across(up(value), _mark(value))
    for kind, values in (("longest", [m.longest for m in moments]), ("median", [m.median for m in moments])):
        points = [(across(m.at), up(v)) for m, v in zip(moments, values, strict=True) if v is not None]
        parts.append(_path(points, kind))
    return parts


def recoveries(report: Report) -> str:
    """For each kind of fault a row of dots, one for each time it took to recover, and a stroke at the median."""
    kinds = report.by_kind
    height = ROW * len(kinds) + 40
    across = Scale(DECADES[0], DECADES[-1], LEFT, WIDTH - RIGHT, log=True)
    parts = []
    for value in DECADES:
        x = across(value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="6" y2="{height - 28}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 12}" text-anchor="middle">{_mark(value)}</text>')
    for row, (what, strikes) in enumerate(kinds.items()):
        middle = 8 + row * ROW + ROW / 2
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{middle + 4}">{escape(what)}</text>')
        times = sorted(strike.recovered for strike in strikes if strike.recovered is not None)
        for strike in strikes:
            if strike.recovered is not None:
                tip = escape(_tip(strike))
                parts.append(
                    f'<circle class="{escape(strike.kind)}" cx="{across(strike.recovered)}" cy="{middle}" r="4">'
                    f"<title>{tip}</title></circle>"
                )
        if (median := quantile(times, 0.5)) is not None:
            x = across(median)
            parts.append(f'<line class="stroke" x1="{x}" x2="{x}" y1="{middle - 8}" y2="{middle + 8}"/>')
    return _svg(height, "Time to recover, by kind of fault", parts)


def _mark(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


def _svg(height: float, what: str, parts: Iterable[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(what)}">{inside}</svg>'


def _name(text: str, top: float) -> str:
    return f'<text class="name" x="{LEFT - 50}" y="{top + 4}">{text}</text>'


def _line_across(y: float, label: str) -> list[str]:
    return [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>',
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>',
    ]


def _minutes(end: float, across: Scale, y: float) -> list[str]:
    step = next((step for step in (5, 10, 30, 60, 120, 300, 600) if end / step <= 12), 1800)
    marks = range(0, int(end) + 1, step)
    return [
        f'<text class="tick" x="{across(at)}" y="{y}" text-anchor="middle">{at // 60}:{at % 60:02d}</text>'
        for at in marks
    ]


def _path(points: Sequence[tuple[float, float]], kind: str) -> str:
    if not points:
        return ""
    along = " L".join(f"{x} {y}" for x, y in points)
    return f'<path class="curve {kind}" d="M{along}"/>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    power = 10.0 ** math.floor(math.log10(max(value, 1.0)))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power)

"""What several commands need: the configuration they were called with, users, spans, points in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from router import urn
from router.clock import MICROSECONDS, SystemClock
from router.config import Config, load_with_origins
from router.errors import InvalidUrn

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def config_file(ctx: typer.Context) -> Path | None:
    """What ``--config`` named."""
    named = ctx.find_root().obj
    return named if isinstance(named, Path) else None


def configured(ctx: typer.Context) -> Config:
    """The configuration, with its warnings told on stderr; raises ``ConfigError``."""
    loaded = load_with_origins(config_file(ctx))
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return loaded.config


def user(text: str) -> str:
    """The canonical URN that an argument names."""
    try:
        return urn.parse(text)
    except InvalidUrn as error:
        raise typer.BadParameter(f"{text!r} is not a valid user: {error}") from error


def seconds(text: str) -> int:
    """The seconds that ``90s``, ``30m``, ``1h30m`` or ``2d`` name; a bare number is seconds."""
    parts = re.fullmatch(r"(\d{1,9})|((\d{1,9})d)?((\d{1,9})h)?((\d{1,9})m)?((\d{1,9})s)?", text)
    if not text or parts is None:
        raise typer.BadParameter(f"{text!r} is not a duration; write for example 90s, 30m, 1h30m or 2d")
    return sum(int(number) * _UNITS[unit or "s"] for number, unit in re.findall(r"(\d+)([smhd]?)", text))


def moment(text: str) -> int:
    """The point in time (µs since 1970) that RFC 3339, or its date alone, names; UTC where it does not say."""
    try:
        named = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a date or time; write for example 2026-12-01 or 2026-12-01T08:30:00Z"
        ) from error
    return ((named if named.tzinfo else named.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def now() -> int:
    """The wall clock in µs since 1970."""
    return SystemClock().now()


def timestamp(at: int) -> str:
    """A point in time (µs since 1970) by RFC 3339, in UTC."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat().replace("+00:00", "Z")


def age_seconds(at: int, now_us: int) -> float:
    """How long ago, in seconds; never negative, since clocks step."""
    return max(0, now_us - at) / MICROSECONDS

"""Comparing this machine's clock with others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import httpx

from router import proxies
from router.clock import MICROSECONDS, Clock, apart
from router.doctor.findings import Finding, error, fine, note, warning
from router.errors import ConfigError

OFF_SECONDS = 2.0
"""An HTTP date has a resolution of one second; a difference above this is not due to rounding."""
WHY = (
    "Each node judges leases, tokens and ephemeral messages by its own clock. A wrong clock ends presence too early or "
    "too late and rejects valid tokens."
)
FIX = "run a time service on every node: timedatectl set-ntp true"


def judge(check: str, whose: str, apart_seconds: float, tolerated: float) -> Finding:
    """A finding for two clocks; ``apart_seconds`` is how far this one is ahead, ``tolerated`` what is forgiven."""
    apart = abs(apart_seconds)
    way = "ahead of" if apart_seconds > 0 else "behind"
    if apart < OFF_SECONDS:
        return fine(check, f"this clock agrees with that of {whose}")
    found = f"this clock is {apart:.1f} s {way} that of {whose}"
    return (error if apart > tolerated else warning)(check, found, WHY, FIX)


async def by_http(check: str, url: str, clock: Clock, tolerated: float) -> AsyncIterator[Finding]:
    """Compare with the ``Date`` of whatever answers at ``url``; any status will do."""
    whose = httpx.URL(url).host
    async with proxies.client(follow_redirects=False) as client:
        before = clock.now()
        try:
            response = await client.get(url, headers={"cache-control": "no-cache"})
        except (httpx.HTTPError, ConfigError) as problem:
            yield note(check, f"{whose} does not answer, so its clock is unknown: {problem!r}")
            return
        after = clock.now()
    try:
        told = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        yield note(check, f"{whose} sent no date", "This clock cannot be compared with it.")
        return
    # A date is cut to the second: the moment meant may be up to one second later.
    theirs = int(told.timestamp()) * MICROSECONDS
    later = theirs + MICROSECONDS
    nearest = min(max(before, theirs), later)
    yield judge(check, whose, apart(before, after, nearest), tolerated)

"""Comparing this machine's clock with others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import httpx

from router import proxies
from router.clock import MICROSECONDS, Clock, apart
from router.errors import ConfigError
from router.findings import Finding, judge_clock, note


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
    yield judge_clock(check, whose, apart(before, after, nearest), tolerated)

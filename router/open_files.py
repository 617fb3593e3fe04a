"""The limit of open files."""

from __future__ import annotations

import resource

from router import logs

LOG = logs.logger(__name__)
OWN_FILES = 256
"""Open files that the process keeps for itself: databases, logs, connections to its stores."""


def raise_limit() -> None:
    """Every socket is a file; the soft limit is often 1024 where far more are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        # macOS allows less than it says.
        LOG.debug("the limit of open files stays", error=str(error))


def left_for_clients() -> int | None:
    """How many connections of clients may be open at once, that the process can still open what it needs; ``None``
    where the system has no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit - min(OWN_FILES, limit // 2)

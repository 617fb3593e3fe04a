"""The limit of open files."""

from __future__ import annotations

import resource

from router import logs

LOG = logs.logger(__name__)


def raise_limit() -> None:
    """Every socket is a file; the soft limit is often 1024 where far more are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        # macOS allows less than it says.
        LOG.debug("the limit of open files stays", error=str(error))

"""Counts and logs what the edge refuses: requests, and clients that are cut off."""

from __future__ import annotations

from typing import get_args

from router.errors import RouterError, TokenProblem, Unauthorized, Unavailable
from router.logs import logger
from router.metrics import Cut, Metrics
from router.sampling import Later, Sampler, in_loop
from router.web import problems

LOG = logger(__name__)
REFUSALS = {kind.slug for error, kind in problems.KINDS.items() if error is not Unauthorized} | {
    *get_args(TokenProblem)
}
"""The reasons of all refusals: why a token was rejected, or the kind of problem."""


class RefusalLog:
    """Counts each refusal and each client cut off. Of many alike, it logs some, and then the number of the others."""

    def __init__(self, metrics: Metrics, later: Later = in_loop) -> None:
        metrics.refusals(sorted(REFUSALS))
        self._metrics = metrics
        self._sampler = Sampler(_left_out, later)

    def refused(self, error: RouterError) -> None:
        """Count and log a refusal; nothing is said of the request but its id."""
        kind = problems.kind_of(error)
        reason = error.reason if isinstance(error, Unauthorized) else kind.slug
        self._metrics.refused(reason)
        if not self._sampler.passes(reason):
            return
        if kind.status >= 500:
            LOG.warning("refused", status=kind.status, reason=reason, detail=str(error), **_dependency(error))
        else:
            LOG.info("refused", status=kind.status, reason=reason)

    def cut(self, reason: Cut) -> None:
        """Count and log a client that was cut off."""
        self._metrics.cut(reason)
        if self._sampler.passes(reason):
            LOG.info("cut off", reason=reason)

    def failed(self, error: Exception, path: str) -> None:
        """Log a fault of ours, with its traceback."""
        if self._sampler.passes(type(error).__name__):
            LOG.error("request failed", path=path, exc_info=error)

    def finish(self) -> None:
        """Log how many were left out so far."""
        self._sampler.finish()


def _dependency(error: RouterError) -> dict[str, str]:
    return {"dependency": error.dependency} if isinstance(error, Unavailable) and error.dependency else {}


def _left_out(reason: str, count: int) -> None:
    LOG.warning("more of the same", reason=reason, left_out=count)

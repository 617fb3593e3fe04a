"""``Reports`` in the log."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextvars import Context

from router.config.roles import Role
from router.core.dependencies import Place
from router.logs import logger
from router.messages import DeadLetter
from router.sampling import Later, Sampler, in_loop

LOG = logger(__name__)
EFFECTS: dict[str, str] = {
    Role.INGRESS: "sends that cannot be stored are answered 503, and accepted messages wait to be routed",
    Role.ONLINE: "mail goes to cold; fetches, acknowledgements and new connections are answered 503",
    Role.COLD: "mail for users who are offline waits in the ingress; users who may have cold mail are answered 503",
    Role.PUSH: "mail is stored and can be fetched; it stays in the ingress until its push command is sent",
    Role.DEAD_LETTERS: "refused messages wait in the ingress, and later mail of their recipients waits behind them",
}
"""What an outage means for mail, from its beginning on, where everything else works."""
ONE_DATABASE = (
    "ingress and online store are one database: accepted messages wait in it; sends, fetches, acknowledgements and "
    "new connections are answered 503"
)
ONE_STORE = (
    "if cold, which is in the same store, fails too, mail waits in the ingress; fetches, acknowledgements and new "
    "connections are answered 503"
)


def _left_out(bug: str, count: int) -> None:
    LOG.error("more of the same bug", bug=bug, left_out=count)


class LogReports:
    """Outages and dead letters have a line each; of bugs alike some in a minute."""

    def __init__(self, kinds: Mapping[Role, str], later: Later = in_loop) -> None:
        """``kinds`` of backends, for each role: what is of one kind is in one place, and fails together."""
        self._kinds = kinds
        self._sampler = Sampler(_left_out, later)

    def outage(self, place: Place, error: str) -> None:
        LOG.error(
            "outage begins",
            dependency=place.role,
            kind=place.backend,
            server=place.address,
            error=error,
            effect=self._effect(place),
        )

    def _effect(self, place: Place) -> str:
        together = {role for role, kind in self._kinds.items() if kind == place.backend}
        if {Role.INGRESS, Role.ONLINE} <= together:
            return ONE_DATABASE
        if place.role == Role.ONLINE and Role.COLD in together:
            return ONE_STORE
        return EFFECTS[place.role]

    def outage_over(self, place: Place, seconds: float, failures: int) -> None:
        LOG.warning(
            "outage is over",
            dependency=place.role,
            kind=place.backend,
            server=place.address,
            seconds=round(seconds, 1),
            failed_calls=failures,
        )

    def dead_letter(self, letter: DeadLetter) -> None:
        # In a context of its own: where a send is routed at once, the line would have its request id and its trace, or
        # those of another one that is routed with it, beside the recipient.
        Context().run(
            LOG.warning,
            "dead letter",
            reason=letter.reason,
            id=letter.id,
            recipient=letter.recipient,
            attempts=letter.attempts,
        )

    def bug(self, where: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if self._sampler.passes(f"{type(error).__name__} {at}"):
            LOG.error("a bug in the router", work=where, exc_info=error)

    def finish(self) -> None:
        """Say now what the log has not had in full."""
        self._sampler.finish()

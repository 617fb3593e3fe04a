"""The backend of ``push.kind = "none"``: nobody is to be notified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import NoReturn, final

from router.backends.base import PushBackend
from router.config.roles import Role
from router.errors import ConfigError
from router.findings import Finding, note
from router.messages import Message


@final
class NoneBackend(PushBackend):
    """Drops push commands."""

    name = "none"
    fix = "set push.kind"

    async def _open(self, stack: AsyncExitStack) -> None:
        """There is nothing to open."""

    def address(self, role: Role) -> str:
        del role
        return "nowhere"

    def push_notifier(self) -> NoPush:
        return NoPush()

    async def outbox(self, subscription: str = "") -> NoReturn:
        del subscription
        raise ConfigError('push.kind = "none": push commands go to nowhere, not to an outbox')

    def settings(self) -> Iterator[Finding]:
        why = "Users who are offline learn of mail only when they open the app."
        yield note("config.push", "push commands are discarded", why, 'set push.kind = "pubsub"')


class NoPush:
    """``PushNotifier`` without anybody to notify."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Drop the commands."""
        del messages

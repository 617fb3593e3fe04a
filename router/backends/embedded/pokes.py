"""The embedded poke bus: pokes go straight to the process that holds the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from router.backends.embedded.signals import Signalling


class EmbeddedPokeBus:
    """``PokeBus`` over ``Signals``."""

    def __init__(self, signals: Signalling) -> None:
        self._signals = signals

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        users: dict[str, list[str]] = {}
        for node, user in pokes:
            users.setdefault(node, []).append(user)
        for node, own in users.items():
            self._signals.poke(node, own)

    def listen(self, node: str) -> AsyncIterator[list[str]]:
        return self._signals.pokes(node)

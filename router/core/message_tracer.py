"""Asks all backends what they know of one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from router.config.roles import Place, Role
from router.core.message_story import Memory, Story, tell
from router.errors import Unavailable
from router.interfaces import MessageTraces
from router.lifecycle import GONE
from router.message_trace import NOTHING, Facts, merged


class Source(Struct, frozen=True):
    """One backend, and what it keeps."""

    places: Sequence[Place]
    traces: MessageTraces
    finds_by_id: bool


class Unsaid(Struct, frozen=True):
    """A dependency that says nothing, and why."""

    place: Place
    why: str


class Trace(Struct, frozen=True):
    """What became of the messages that have one id: of one in most cases, since an id belongs to a recipient."""

    stories: list[Story]
    silent: list[Unsaid]
    """They do not answer now."""
    unasked: list[Unsaid]
    """They cannot be asked for one message."""


class MessageTracer:
    """Looks, and changes nothing. Its state: the dependencies that have not answered."""

    def __init__(
        self, sources: Sequence[Source], memory: Memory, *, silent: Sequence[Unsaid], untraceable: Sequence[Unsaid]
    ) -> None:
        """``sources``: in the order in which they are asked, the online store first. ``silent``: what could not even
        be opened. ``untraceable``: what can be asked for no message."""
        self._sources = sources
        self.memory = memory
        self._silent = {unsaid.place: unsaid.why for unsaid in silent}
        self._untraceable = list(untraceable)

    async def trace(self, id_: str, user: str | None, looked: Callable[[int], None]) -> Trace:
        """``user``: the recipient, if the caller knows them; ``looked`` as in ``MessageTraces.recipients``."""
        users = [user] if user is not None else await self._recipients(id_, looked)
        facts = {user: await self._facts(user, id_) for user in users}
        silent = {place.role: _outage(place, why) for place, why in self._silent.items()}
        return Trace(
            [tell(id_, user, known, self.memory, silent) for user, known in facts.items() if known.known],
            [Unsaid(place, why) for place, why in self._silent.items()],
            [*self._untraceable, *(self._needs_user() if not users else [])],
        )

    async def _recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        found: dict[str, None] = {}
        for source in self._sources:
            try:
                found |= dict.fromkeys(await source.traces.recipients(id_, looked))
            except Unavailable as error:
                self._note(source, error)
        return list(found)

    async def _facts(self, user: str, id_: str) -> Facts:
        facts = NOTHING
        for source in self._sources:
            if any(place in self._silent for place in source.places):
                continue
            record = facts.record
            known = record is not None and record.state not in GONE
            place = (record.lane, record.sequence) if record is not None and known else None
            try:
                facts = merged(facts, await source.traces.facts(user, id_, place))
            except Unavailable as error:
                self._note(source, error)
        return facts

    def _note(self, source: Source, error: Unavailable) -> None:
        self._silent |= {place: str(error) for place in source.places}

    def _needs_user(self) -> list[Unsaid]:
        why = "finds a message only with its recipient: name them with --user"
        blind = [source for source in self._sources if not source.finds_by_id]
        return [Unsaid(place, why) for source in blind for place in source.places]


def _outage(place: Place, why: str) -> str:
    where = f"{place.backend}, {place.address}" if place.address else place.backend
    return f"{_NAMES[place.role]} ({where}) does not answer: {why}"


_NAMES: Mapping[Role, str] = {
    Role.INGRESS: "the ingress",
    Role.ONLINE: "the online store",
    Role.COLD: "the cold queue",
    Role.PUSH: "the push commands' queue",
    Role.DEAD_LETTERS: "the dead letters' queue",
}

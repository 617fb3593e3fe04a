"""What Firestore knows of one message, in whichever of the two queues it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.backends.firestore.client import Client
from router.backends.firestore.documents import BARE
from router.backends.firestore.names import Layout, document_id, place_number, place_of, possible
from router.backends.firestore.recipient import Recipient
from router.backends.firestore.transactions import Transactions
from router.backends.firestore.wire import Document
from router.backends.routing_rules import holds_move, offline_since
from router.clock import Clock
from router.interfaces import Place
from router.lifecycle import GONE, Event, step
from router.message_trace import Attention, Copy, Facts, Record
from router.messages import Lane

EPHEMERAL = "ephemeral_at"
UNREPORTED = "untold_at"


class FirestoreMessageTraces:
    """``MessageTraces`` over Firestore. The names of documents begin with their users, so no message is found without
    its recipient."""

    def __init__(self, client: Client, clock: Clock, *, online: Transactions | None, cold: Layout | None) -> None:
        """``online``, ``cold``: ``None`` where another backend keeps that queue."""
        self._client = client
        self._clock = clock
        self._online = online
        self._cold = cold

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        del id_, looked
        return []

    async def facts(self, user: str, id_: str, place: Place | None) -> Facts:
        if not possible(id_):
            return Facts()
        found: dict[str, Any] = {}
        if self._online is not None:
            found |= await self._in_online_store(self._online, user, id_)
            record = found.get("record")
            place = (record.lane, record.sequence) if record is not None and record.state not in GONE else None
        if self._cold is not None:
            found |= await self._in_cold_queue(self._cold, user, id_, place)
        return Facts(**found)

    async def _in_online_store(self, online: Transactions, user: str, id_: str) -> dict[str, Any]:
        state, records = await online.state(user), await online.records(user, [id_])
        found: dict[str, Any] = {"attention": _attention(state, self._clock.now())}
        if not records:
            return found
        (record,) = records
        taken = state is not None and state.is_doubled(record.lane, record.sequence)
        found["record"] = Record(
            state=step(record.state, Event.TAKEN).after if taken else record.state,
            lane=Lane(record.lane),
            keyed=record.keyed,
            sequence=record.sequence,
            left_at=record.acked_at,
        )
        if record.state in GONE:
            return found
        place = record.lane, record.sequence
        document = await self._message(online.layout.hot_of(user), id_)
        if document is not None:
            announced = 0 if state is None else state.announced
            found["hot"] = _copy(document, announced=record.sequence <= announced)
        found["hot_ahead"] = await self._ahead(online.layout.user(user), online.layout.hot, place)
        if state is not None:
            found["pending_ahead"] = sum(
                write.lane == record.lane and write.sequence < record.sequence for write in state.pending.values()
            )
        return found

    async def _in_cold_queue(self, layout: Layout, user: str, id_: str, place: Place | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        messages = f"{layout.collection}-messages"
        document = await self._message(f"{layout.user(user)}/{messages}", id_)
        if document is not None:
            found["cold"] = copy = _copy(document, announced=True)
            place = copy.lane, copy.sequence
        if place is not None:
            found["cold_ahead"] = await self._ahead(layout.user(user), messages, place)
        return found

    async def _message(self, collection: str, id_: str) -> Document | None:
        """The document of the message ``id_``, without its envelope."""
        path = f"{collection}/{document_id(id_)}"
        select = (*BARE, EPHEMERAL, UNREPORTED)
        found = await self._client.call(lambda seconds: self._client.get([path], seconds, select))
        return found.get(path)

    async def _ahead(self, parent: str, collection: str, place: Place) -> int:
        """How many messages of its lane stand in front of ``place``."""
        lane, sequence = place
        first, last = place_number(lane, 0), place_number(lane, sequence) - 1
        return await self._client.count_within(parent, collection, "place", first, last)


def _attention(state: Recipient | None, now: int) -> Attention:
    if state is None:
        return Attention([])
    moves, live = holds_move(state.move_until, now), state.live(now)
    ended = (connection.lease_until for connection in state.connections)
    return Attention(
        connections=sorted(live, key=lambda one: (one.since, one.id)),
        offline_since=0 if live else offline_since(state.offline_since, ended),
        poked_at=state.poked_at,
        fetched=state.fetched,
        cut_at=state.cut_at,
        move_owner=state.move_owner if moves else "",
        move_until=state.move_until if moves else 0,
    )


def _copy(document: Document, *, announced: bool) -> Copy:
    fields = document.fields
    lane, sequence = place_of(fields["place"].integer_value)
    return Copy(
        lane=Lane(lane),
        sequence=sequence,
        queued_at=fields["queued_at"].integer_value,
        accepted_at=fields["accepted_at"].integer_value,
        keyed=fields["keyed"].boolean_value,
        ephemeral=EPHEMERAL in fields,
        bytes=fields["size"].integer_value,
        attempts=fields["attempts"].integer_value,
        announced=announced,
        unreported=UNREPORTED in fields,
    )

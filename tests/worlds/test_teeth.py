"""The judge is judged: routers that tell something are told from those that do not."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from router import ids
from router.backends.embedded.direct import EmbeddedRoutingIngress
from router.backends.embedded.pokes import EmbeddedPokeBus
from router.backends.embedded.recipients import HOT
from router.clock import MICROSECONDS
from router.core import send_limits
from router.core.user_queue import CompositeMessageQueue
from router.errors import InvalidEnvelope, InvalidRequest, RateLimited
from router.messages import Message, Published, Queued
from router.web.context import EdgeContext
from router.web.health import Health
from router.web.request_ids import RequestIds
from tests.support.mutation import replace, rewritten
from tests.support.stores import CAP, EmbeddedStores
from tests.worlds import client, service
from tests.worlds.judge import difference, view
from tests.worlds.people import STRANGER, Full, FullOfBytes, Online, Reader, Silent, Spent, Victim

Patch = pytest.MonkeyPatch


def one_id_for_all_recipients(patch: Patch) -> None:
    """In the hash and on record: whoever comes second under it is taken for a redelivery of the first."""
    keyed = ids.keyed_id
    patch.setattr(ids, "keyed_id", lambda secret, sender, recipient, key: keyed(secret, sender, "", key))
    for name, rewrite in (
        ("registered", replace("user = ?", "? <> ''")),
        (
            "register",
            replace(
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                "SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM route WHERE id = ?1)",
            ),
        ),
    ):
        patch.setitem(HOT, name, rewritten(HOT[name], rewrite, name))


def request_ids_are_counted(patch: Patch) -> None:
    count = itertools.count()
    patch.setattr(RequestIds, "of", lambda *_: f"{next(count):016x}")


def message_ids_are_counted(patch: Patch) -> None:
    count = itertools.count()
    new = ids.new_id
    patch.setattr(ids, "new_id", lambda now, _: new(now, next(count).to_bytes(10, "big")))


def a_full_queue_is_answered(patch: Patch) -> None:
    before_publishing(
        patch, "SELECT hot + cold >= ? FROM recipient WHERE user = ?", RateLimited("their queue is full", 9)
    )


def who_is_unknown_is_answered(patch: Patch) -> None:
    query = "SELECT 1 FROM recipient WHERE ? AND user = ?"
    before_publishing(patch, f"SELECT NOT EXISTS ({query})", InvalidEnvelope("there is nobody of this name"))


def a_queue_full_by_bytes_is_answered(patch: Patch) -> None:
    query = "SELECT hot_bytes + cold_bytes >= ? FROM recipient WHERE user = ?"
    before_publishing(patch, query, RateLimited("their queue is full", 9), service.LARGE_BYTES)


def a_spent_inbound_budget_is_answered(patch: Patch) -> None:
    """It is whole again in days; what is behind the last sequence by more than half of that is spent."""
    spent = int(service.INBOUND_BYTES / service.INBOUND_BYTES_PER_SECOND / 2 * MICROSECONDS)
    query = "SELECT inbound_until - sequence > ? FROM recipient WHERE user = ?"
    before_publishing(patch, query, RateLimited("too much comes to them", 9), spent)


def before_publishing(patch: Patch, query: str, refusal: Exception, limit: int = CAP) -> None:
    """Refuse where ``query`` says yes of the recipient, for this ``limit``."""
    publish = EmbeddedRoutingIngress.publish

    async def ask(self: EmbeddedRoutingIngress, messages: Sequence[Message]) -> Published:
        def refused(db: sqlite3.Connection) -> bool:
            rows = [db.execute(query, (limit, message.recipient)).fetchone() for message in messages]
            return any(row is not None and row[0] for row in rows)

        if self._state.database.read(refused):
            raise refusal
        return await publish(self, messages)

    patch.setattr(EmbeddedRoutingIngress, "publish", ask)


def a_header_tells_who_is_online(patch: Patch) -> None:
    publish, headers, seen = EmbeddedRoutingIngress.publish, EdgeContext.common_headers, [0]

    async def look(self: EmbeddedRoutingIngress, messages: Sequence[Message]) -> Published:
        query = "SELECT count(*) FROM presence WHERE user = ?"
        seen[0] = self._state.database.read(lambda db: db.execute(query, (messages[-1].recipient,)).fetchone()[0])
        return await publish(self, messages)

    def tell(self: EdgeContext, *about: Any) -> list[tuple[bytes, bytes]]:
        return [*headers(self, *about), (b"x-devices", b"%d" % seen[0])]

    patch.setattr(EmbeddedRoutingIngress, "publish", look)
    patch.setattr(EdgeContext, "common_headers", tell)


def metrics_are_public(patch: Patch) -> None:
    public = Health.public_routes

    def routes(self: Health) -> list[Route]:
        return [*public(self), Route("/metrics", self.metrics)]

    patch.setattr(Health, "public_routes", routes)


def all_senders_share_a_limit(patch: Patch) -> None:
    hidden = send_limits._hidden
    patch.setattr(send_limits, "_hidden", lambda secret, sender, recipient="": hidden(secret, "", recipient))


def pokes_go_to_everybody(patch: Patch) -> None:
    publish = EmbeddedPokeBus.publish

    async def shout(self: EmbeddedPokeBus, pokes: Sequence[tuple[str, str]]) -> None:
        await publish(self, [*pokes, *((node, STRANGER) for node, _ in pokes)])

    patch.setattr(EmbeddedPokeBus, "publish", shout)


def what_is_not_ones_own_is_answered(patch: Patch) -> None:
    acknowledge = CompositeMessageQueue.acknowledge

    async def refuse(self: CompositeMessageQueue, user: str, wanted: Sequence[str]) -> None:
        others = await self._online.acked("urn:sm:user:victim", wanted)
        if others:
            raise InvalidRequest(f"{len(others)} of these are acknowledged by somebody else")
        await acknowledge(self, user, wanted)

    patch.setattr(CompositeMessageQueue, "acknowledge", refuse)


def what_is_not_ones_own_is_answered_with_a_page(patch: Patch) -> None:
    following = CompositeMessageQueue.next

    async def refuse(self: CompositeMessageQueue, user: str, wanted: Sequence[str], limit: int) -> list[Queued]:
        others = await self._online.acked("urn:sm:user:victim", wanted)
        if others:
            raise InvalidRequest(f"{len(others)} of these are acknowledged by somebody else")
        return await following(self, user, wanted, limit)

    patch.setattr(CompositeMessageQueue, "next", refuse)


MUTANTS: Sequence[tuple[Callable[[Patch], None], type[Victim], type[Victim]]] = (
    (one_id_for_all_recipients, Victim, Online),
    (request_ids_are_counted, Victim, Reader),
    (message_ids_are_counted, Victim, Full),
    (a_full_queue_is_answered, Victim, Full),
    (a_queue_full_by_bytes_is_answered, Victim, FullOfBytes),
    (a_spent_inbound_budget_is_answered, Victim, Spent),
    (who_is_unknown_is_answered, Victim, Online),
    (a_header_tells_who_is_online, Victim, Silent),
    (metrics_are_public, Victim, Reader),
    (all_senders_share_a_limit, Victim, Full),
    (pokes_go_to_everybody, Victim, Reader),
    (what_is_not_ones_own_is_answered, Victim, Reader),
    (what_is_not_ones_own_is_answered_with_a_page, Victim, Reader),
)


@pytest.mark.anyio
@pytest.mark.parametrize(("mutant", "one", "other"), MUTANTS, ids=[mutant.__name__ for mutant, *_ in MUTANTS])
async def test_what_tells_something_is_caught(
    tmp_path: Path,
    monkeypatch: Patch,
    mutant: Callable[[Patch], None],
    one: type[Victim],
    other: type[Victim],
) -> None:
    for module, limit in ((service, "COME_SECONDS"), (client, "POKE_SECONDS")):
        monkeypatch.setattr(module, limit, 0.5)
    mutant(monkeypatch)
    first, second = [await view(EmbeddedStores(tmp_path / victim.__name__), victim) for victim in (one, other)]
    assert difference(first, second)


@pytest.mark.anyio
@pytest.mark.parametrize(("victim", "reason"), [(FullOfBytes, "queue-full"), (Spent, "inbound-exhausted")])
async def test_a_recipient_over_its_limits_gets_no_more_mail(tmp_path: Path, victim: type[Victim], reason: str) -> None:
    async with service.serving(EmbeddedStores(tmp_path)) as running:
        other = victim(running)
        await other.prepare()
        assert running.refused(reason) == 0
        await other.get_mail(2)
        assert running.refused(reason) == 2
        await other.leave()

"""Testing by doing, over the seams: a user, a message and a document that cannot meet real ones.

The user's name holds 128 random bits. The message is ephemeral and its user never gets it: whatever becomes of this
process, it is neither moved to cold nor announced to anybody, and is dropped by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator

import msgspec

from router.clock import MICROSECONDS, Clock
from router.findings import Finding, error, fine, warning
from router.interfaces import ColdQueue, IngressProducer, OnlineStore, PokeBus
from router.messages import Connection, Delivery, Lane, Message, Outcome, Queued

PAGE_BYTES = 1024 * 1024
POKE_SECONDS = 3.0
POKE_AGAIN_SECONDS = 0.5
BACKLOG_SECONDS = 60.0
STEP_WHY = "Routing, fetching and acknowledging are atomic steps in this store; without them nothing is delivered."
STEP_FIX = "run `router setup`; if that does not help, the store has another version, or the router has a bug"

SLOW_SECONDS = 2.0
SLOW_FIX = "run the router in the same region as this store, and check the load of the store"


class ProbeFailed(Exception):
    """A step did something else than it must."""


def probe_user() -> str:
    """A user whom nobody else has."""
    return f"urn:sealed-router:doctor:{secrets.token_hex(16)}"


def probe_message(user: str, now: int, *, ephemeral: bool) -> Message:
    """A message to ``user``, whose id every store remembers when it is acknowledged; its envelope holds nothing."""
    envelope = msgspec.json.encode({"recipientId": user} | ({"isEphemeral": True} if ephemeral else {}))
    return Message(f"doctor-{secrets.token_hex(16)}", user, envelope, Lane.NORMAL, ephemeral, now, keyed=True)


async def ingress(producer: IngressProducer, clock: Clock) -> Finding:
    """Whether a publish would succeed, and whether what was published is being routed. Publishes nothing."""
    check = "ingress.publish"
    await producer.probe()
    backlog = await producer.backlog()
    if backlog is None:
        return fine(check, "takes messages")
    waits = (clock.now() - backlog.oldest_at) / MICROSECONDS if backlog.messages else 0.0
    found = f"takes messages; {backlog.messages} wait to be routed"
    if waits > BACKLOG_SECONDS:
        why = "Messages are delivered only after they are routed."
        return warning(check, f"{found}, the oldest for {waits:.0f} s", why, "start `router process`, or another one")
    return fine(check, found)


async def online_store(store: OnlineStore, pokes: PokeBus, clock: Clock) -> AsyncIterator[Finding]:
    """Takes a probe user through presence, routing, poke, fetch and acknowledgement."""
    await store.probe()  # so that what follows is not the time that connections take to open
    began = time.perf_counter()
    connection = Connection(probe_user(), secrets.token_hex(8), f"doctor-{secrets.token_hex(8)}", clock.now())
    heard = asyncio.Event()
    listening = asyncio.create_task(_listen(pokes, connection, heard))
    try:
        await store.connect(connection, 1)
        await _message_passes(store, connection.user, clock)
        found = f"routes, serves and acknowledges a probe in {_ms(began)}"
        yield _pace("online.step", found, time.perf_counter() - began)
        yield await _poke_arrives(store, connection.user, heard, listening)
        await store.disconnect([connection])
        _require(not await store.connections(connection.user), "a connection that was removed is still there")
    except ProbeFailed as problem:
        took = time.perf_counter() - began
        slow = f" after {took:.1f} s; its presence or the message may have expired" if took > SLOW_SECONDS else ""
        yield error("online.step", f"{problem}{slow}", STEP_WHY, SLOW_FIX if slow else STEP_FIX)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await store.disconnect([connection])


async def _message_passes(store: OnlineStore, user: str, clock: Clock) -> None:
    message = probe_message(user, clock.now(), ephemeral=True)
    (routed,) = await store.route([Delivery(message, 0, 1)])
    _require(routed.outcome is Outcome.HOT, f"a message for a user who is online was routed {routed.outcome.value}")
    page = await store.read(user, 10, PAGE_BYTES)
    served = [queued.message for queued in page.messages]
    _require(served == [message], f"a fetch returned {len(served)} messages instead of the one that was routed")
    await store.ack(user, [message.id])
    page = await store.read(user, 10, PAGE_BYTES)
    _require(not page.messages, "a message that was acknowledged is still there")
    (again,) = await store.route([Delivery(message, 0, 2)])
    _require(again.outcome is Outcome.DUPLICATE, f"an acknowledged message came back as {again.outcome.value}")


async def _listen(pokes: PokeBus, connection: Connection, heard: asyncio.Event) -> None:
    async for users in pokes.listen(connection.node):
        if connection.user in users:
            heard.set()


async def _poke_arrives(store: OnlineStore, user: str, heard: asyncio.Event, listening: asyncio.Task[None]) -> Finding:
    """A new listener does not get pokes from before, so this pokes again until one arrives."""
    began = time.perf_counter()
    while not heard.is_set() and time.perf_counter() - began < POKE_SECONDS and not listening.done():
        await store.poke([user])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), POKE_AGAIN_SECONDS)
    if heard.is_set():
        return fine("online.pokes", f"a poke arrives ({_ms(began)})")
    reason = f": {listening.exception()}" if listening.done() and not listening.cancelled() else ""
    return error(
        "online.pokes",
        f"no poke arrived within {POKE_SECONDS:g} s{reason}",
        "Without pokes, clients that are online learn of new mail by push commands only, a minute late.",
        "Redis: let the user subscribe, as in docs/redis.md; Firestore: let the account create subscriptions",
    )


async def cold_queue(cold: ColdQueue, clock: Clock) -> AsyncIterator[Finding]:
    """Writes, reads and deletes a probe document."""
    await cold.probe()
    began = time.perf_counter()
    user, now = probe_user(), clock.now()
    queued = Queued(probe_message(user, now, ephemeral=False), now, now, announced=True)
    why = "It holds the mail of users who are offline. While it fails, the pipeline waits and the ingress fills."
    fix = "Firestore: compare permissions and indexes with docs/firestore.md"
    try:
        _require(not await cold.put([queued]), "the probe document was refused")
        page = await cold.read(user, 10, PAGE_BYTES)
        ids = [found.message.id for found in page.messages]
        _require(ids == [queued.message.id], f"{len(ids)} documents were read after one was written")
        await cold.delete(user, [queued.message.id])
        page = await cold.read(user, 10, PAGE_BYTES)
        _require(not page.messages, "the probe document is still there after it was deleted")
        spent = time.perf_counter() - began
        await cold.oldest(1)  # what walks over all users needs indexes that a user's own queue does without
        yield _pace("cold.document", f"writes, reads and deletes a probe document in {_ms(began)}", spent)
    except ProbeFailed as problem:
        yield error("cold.document", str(problem), why, fix)
    finally:
        await cold.delete(user, [queued.message.id])


def _pace(check: str, found: str, seconds: float) -> Finding:
    if seconds < SLOW_SECONDS:
        return fine(check, found)
    return warning(check, found, "Each message needs such steps.", SLOW_FIX)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ProbeFailed(otherwise)


def _ms(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"

"""What the stranger does: all that an account may do to learn something about somebody else."""

from __future__ import annotations

import json

from tests.support.stores import CAP
from tests.worlds.client import request
from tests.worlds.people import JSON, STRANGER, VICTIM, Stranger
from tests.worlds.service import PAIR_BURST

DAY_SECONDS = 25 * 3600.0
PAUSE_SECONDS = 50.0
"""After it, a sender may send some more to one recipient."""
PUBLIC = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/%6detrics",
    "http://router/metrics",
    "/openapi.json",
    "/asyncapi.json",
    "/nothing",
)
HOSTILE: tuple[bytes, ...] = (
    b"{",
    b"[]",
    b'{"recipientId":"urn:sm:user:victim","encryptedData":"*"}',
    b'{"recipientId":"urn:sm:user:victim","isEphemeral":1}',
    b'{"recipientId":"urn:sm:user:victim","priority":4294967296}',
    b'{"recipientId":"urn::user:victim"}',
    b'{"encryptedData":""}',
)


async def run(stranger: Stranger) -> None:
    """The whole program."""
    await stranger.begin("look")
    await look(stranger)
    await stranger.begin("one key for two, ephemeral")
    await one_key_for_two(stranger, "first", isEphemeral=True)
    await stranger.begin("one key for two")
    await one_key_for_two(stranger, "second")
    await stranger.begin("the same once more")
    await one_key_for_two(stranger, "second", again=True)
    await stranger.begin("several in one request")
    await several(stranger, "fourth")
    await stranger.begin("flood")
    sent = await flood(stranger)
    await stranger.begin("one key for two, behind a flood")
    await one_key_for_two(stranger, "third", priority=5)
    await stranger.begin("acknowledge what is another's")
    await acknowledge(stranger, sent)
    await stranger.begin("malformed")
    await malformed(stranger)
    await stranger.begin("come and go")
    await come_and_go(stranger)
    await stranger.begin("a day later")
    stranger.sleep(DAY_SECONDS)
    await one_key_for_two(stranger, "first", isEphemeral=True)
    await one_key_for_two(stranger, "second")
    await stranger.begin("look again")
    await look(stranger)


async def look(stranger: Stranger) -> None:
    """Whatever is public, and one's own mailbox."""
    for target in PUBLIC:
        await stranger.exchange(request("GET", target))
    await stranger.exchange(request("OPTIONS", "/api/send", [("access-control-request-method", "POST")]))
    await stranger.fetch()


async def one_key_for_two(stranger: Stranger, key: str, *, again: bool = False, **more: object) -> None:
    """Under ``key`` to the victim, then to oneself, connected: does it come? ``again``: it has come before."""
    await stranger.fetch()
    socket = await stranger.connect()
    await stranger.fetch()
    await stranger.quiet([socket])
    sent = await stranger.send(VICTIM, key, **more)
    await stranger.running.settled()
    await stranger.hear([socket])
    own = await stranger.send(STRANGER, key)
    if not again:
        stranger.note(await stranger.running.holds(STRANGER, own))
        stranger.note(await stranger.running.poked(socket))
    await stranger.acknowledge([*await stranger.fetch(), sent, own])
    await stranger.fetch()
    # Under a key, a record stays of what the victim has acknowledged: a page that follows must not tell of it either.
    await stranger.follow([sent, own])
    await stranger.say_goodbye(socket)


async def several(stranger: Stranger, key: str) -> None:
    """To the victim and to oneself under one key, and what is no envelope: each has its own outcome, and one's own
    comes."""
    to_victim, own = ({"envelope": {"recipientId": to}, "idempotencyKey": key} for to in (VICTIM, STRANGER))
    body = json.dumps({"messages": [to_victim, own, {"envelope": {"recipientId": "a b"}}, to_victim]}).encode()
    socket = await stranger.connect()
    await stranger.fetch()
    (answer,) = await stranger.exchange(request("POST", "/api/send/batch", [JSON], body, stranger.token))
    await stranger.running.settled()
    ids = [str(result.get("id", "")) for result in json.loads(answer.body).get("results", ())]
    stranger.note(await stranger.running.holds(STRANGER, "".join(ids[1:2])))
    stranger.note(await stranger.running.poked(socket))
    await stranger.acknowledge([*await stranger.fetch(), *ids])
    await stranger.fetch()
    await stranger.say_goodbye(socket)


async def flood(stranger: Stranger) -> list[str]:
    """More to the victim than a queue takes, and than a sender may send to one recipient, at once; then to oneself."""
    kinds: tuple[dict[str, object], ...] = ({}, {"priority": 7}, {"isEphemeral": True})
    requests = [stranger.sending(VICTIM, "", **kinds[number % 3]) for number in range(max(CAP, PAIR_BURST) + 5)]
    answers = await stranger.exchange(*requests)
    await stranger.running.settled()
    own = await stranger.send(STRANGER)
    stranger.note(await stranger.running.holds(STRANGER, own))
    await stranger.acknowledge(await stranger.fetch(limit=1))
    stranger.sleep(PAUSE_SECONDS)
    return [str(json.loads(answer.body).get("id", "")) for answer in answers]


async def acknowledge(stranger: Stranger, sent: list[str]) -> None:
    """What is in the victim's queue, or was, and what never was anywhere."""
    for ids in (sent[:3], sent, [*sent, *sent], ["unknown", "", "x" * 2000], []):
        await stranger.acknowledge(ids)
        await stranger.follow(ids)
    await stranger.fetch()


async def malformed(stranger: Stranger) -> None:
    """Nothing that is refused tells more than why."""
    for body in HOSTILE:
        await stranger.exchange(request("POST", "/api/send", [JSON], body, stranger.token))
    twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")]
    for odd in (
        request("POST", "/api/send", twice, HOSTILE[0], stranger.token),
        request("POST", "/api/send", [JSON], HOSTILE[0]),
        request("POST", "/api/send", [("content-type", "text/plain")], HOSTILE[0], stranger.token),
        request("POST", "/api/send/batch", [JSON], b'{"messages": [{"envelope": %b}]}' % HOSTILE[2], stranger.token),
        request("POST", "/api/send/batch", [JSON], b'{"messages": "%b"}' % VICTIM.encode(), stranger.token),
        request("GET", f"/api/messages?user={VICTIM}", token=stranger.token),
        request("GET", "/api/messages?limit=0", token=stranger.token),
        request("POST", "/api/messages/next", [JSON], b'{"limit": 0}', stranger.token),
        request("POST", "/api/messages/next", [JSON], b'{"messageIds": "%b"}' % VICTIM.encode(), stranger.token),
        request("GET", "/api/messages/next", token=stranger.token),
        request("GET", "/api/messages", token="no.token.atall"),
        request("DELETE", "/api/messages", token=stranger.token),
        request("GET", "/connect", token=stranger.token),
        request("GET", "/api/messages", [("x-request-id", "mine"), ("origin", "https://evil.example")]),
    ):
        await stranger.exchange(odd)


async def come_and_go(stranger: Stranger) -> None:
    """Several devices at once, each of which is told of one's own mail and of nothing else."""
    sockets = [await stranger.connect() for _ in range(3)]
    await stranger.fetch()
    await stranger.quiet(sockets)
    await stranger.send(VICTIM, priority=9)
    await stranger.running.settled()
    await stranger.hear(sockets)
    own = await stranger.send(STRANGER, priority=9)
    stranger.note(await stranger.running.holds(STRANGER, own))
    for socket in sockets:
        stranger.note(await stranger.running.poked(socket))
    await stranger.follow(await stranger.fetch())
    for socket in sockets:
        await stranger.say_goodbye(socket)

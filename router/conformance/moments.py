"""The hard moments, each with what happens in it and what a client has to do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec
from msgspec import Struct

from router.conformance.proxy import (
    Exchange,
    Fault,
    acknowledgements,
    asked,
    changed,
    cut,
    drop,
    handshakes,
    instead,
    lose,
    pages,
    routed,
    sends,
)
from router.conformance.stage import NEVER_SECONDS, Stage, later
from router.conformance.verdicts import Failed
from router.conformance.wire import Answer, Request

Script = Callable[[Stage], Awaitable[None]]
AWAY_SECONDS = 2.0
REPLACED = 4409
REPLACED_SECONDS = 10.0
"""Less than the 15 s of docs/clients.md, which a clock may round."""
REPLACED_PATIENCE = 45.0
REST_SECONDS = 3.0
CONNECTED_TRIES = 2
MOST_TRIES = 5
"""Of a client that opens no socket."""
_HTML = [("content-type", "text/html")]
_BUSY = b'{"type":"urn:sealed-router:problem:rate-limited","title":"Too many messages","status":429}'
_DOWN = b'{"type":"urn:sealed-router:problem:unavailable","title":"Temporarily unavailable","status":503}'
_WELCOME = b"<html><title>Welcome to this network</title></html>"


class Role(StrEnum):
    """What the client does in a moment."""

    SEND = "send"
    RECEIVE = "receive"


class Moment(Struct, frozen=True):
    """One of them."""

    name: str
    role: Role
    story: str
    expected: str
    play: Script
    poll_seconds: int
    """How often the client is told to fetch though nothing was poked."""


MOMENTS: list[Moment] = []


def moment(
    name: str, role: Role, story: str, expected: str, poll_seconds: int = NEVER_SECONDS
) -> Callable[[Script], Script]:
    """Add a script to ``MOMENTS``."""

    def added(play: Script) -> Script:
        MOMENTS.append(Moment(name, role, story, expected, play, poll_seconds))
        return play

    return added


# Sending


async def _sent(stage: Stage, count: int = 1) -> list[str]:
    """``encryptedData`` of what the client was given to send; raises ``Failed`` unless it says that all was sent."""
    envelopes, data = stage.envelopes(count)
    printed = await stage.client.send(envelopes)
    if len(printed) != count or not all(line.startswith("sent ") for line in printed):
        raise Failed(f"`send` printed {printed} for {count} message(s)")
    arrived = await stage.arrived()
    if lost := [each for each in data if each not in arrived]:
        raise Failed(f"it said that {count} were sent, and {len(lost)} did not arrive")
    return data


def _tries(stage: Stage, data: str) -> list[tuple[Request, str]]:
    """The requests that carried a message, each with its key."""
    return [(one, key) for one in stage.proxy.requests for key, sent in one.sends() if sent == data]


@moment(
    "answer-lost",
    Role.SEND,
    "The router accepts a message, and its answer is lost.",
    "It sends the message again under the same Idempotency-Key, so that it arrives once.",
)
async def _answer_lost(stage: Stage) -> None:
    stage.proxy.plant(lose, sends)
    (data,) = await _sent(stage)
    keys = [key for _, key in _tries(stage, data)]
    if "" in keys:
        raise Failed("it sent the message without an Idempotency-Key")
    if len(set(keys)) > 1:
        raise Failed(f"it sent the message under {len(set(keys))} keys")
    if (copies := (await stage.arrived()).count(data)) != 1:
        raise Failed(f"the message arrived {copies} times")


@moment(
    "unavailable",
    Role.SEND,
    "A send is answered 503, twice.",
    "It sends the message again until it is accepted.",
)
async def _unavailable(stage: Stage) -> None:
    stage.proxy.plant(instead(503, _DOWN, later(1)), sends, times=2)
    await _sent(stage)


@moment(
    "rate-limited",
    Role.SEND,
    "A send is answered 429 with Retry-After: 3.",
    "It waits for 3 s and sends the message again.",
)
async def _rate_limited(stage: Stage) -> None:
    stage.proxy.plant(instead(429, _BUSY, later(3)), sends)
    (data,) = await _sent(stage)
    first, second, *_ = [request.at for request, _ in _tries(stage, data)]
    if second - first < 3:
        raise Failed(f"it sent the message again after {second - first:.1f} s")


@moment(
    "bad-gateway",
    Role.SEND,
    "A proxy answers a send with 502 and a page of HTML.",
    "It sends the message again.",
)
async def _bad_gateway(stage: Stage) -> None:
    stage.proxy.plant(instead(502, b"<html>Bad gateway</html>", _HTML), sends)
    await _sent(stage)


@moment(
    "token-expires-while-sending",
    Role.SEND,
    "A send is answered 401, since the token has expired.",
    "It asks for a new token and sends the message again.",
)
async def _token_send(stage: Stage) -> None:
    async def expire(exchange: Exchange) -> None:
        stage.refuse_token()
        await stage.expired(exchange)

    stage.proxy.plant(expire, sends)
    await _sent(stage)


@moment(
    "refused-for-good",
    Role.SEND,
    "The second of three messages is refused with 400.",
    'It prints "refused 400" for it, does not send it again, and sends the third.',
)
async def _refused(stage: Stage) -> None:
    (first, third), data = stage.envelopes(2)
    bad = b'{"recipientId": "no:urn", "encryptedData": "bm9wZQ=="}'
    printed = await stage.client.send([first, bad, third])
    if [line.partition(" ")[0] for line in printed] != ["sent", "refused", "sent"]:
        raise Failed(f"`send` printed {printed}")
    if (tries := len(_tries(stage, "bm9wZQ=="))) > 2:  # in a batch, and alone
        raise Failed(f"it sent the refused message {tries} times")
    if set(data) - set(await stage.arrived()):
        raise Failed("the others did not arrive")


@moment(
    "order-of-sends",
    Role.SEND,
    "The first of three messages to one recipient does not get through.",
    "None overtakes it: they arrive in their order.",
)
async def _order_of_sends(stage: Stage) -> None:
    stage.proxy.plant(drop, sends)
    data = await _sent(stage, 3)
    places = [data.index(each) + 1 for each in dict.fromkeys(await stage.arrived()) if each in data]
    if places != sorted(places):
        raise Failed(f"they arrived in the order {places}")


# Receiving


@moment(
    "bytes",
    Role.RECEIVE,
    "Messages of every byte, of none, and of 100 KiB arrive.",
    "It saves each as it was sealed.",
)
async def _bytes(stage: Stage) -> None:
    ids = await stage.mail(3, [bytes(range(256)), b"", bytes(100 * 1024)])
    await stage.client.receive()
    saved = dict(await stage.received(ids))
    if other := [id_ for id_ in ids if saved[id_].rstrip("=") != stage.data[id_].rstrip("=")]:
        raise Failed(f"{len(other)} of 3 messages have other bytes than were sent")


@moment(
    "short-pages",
    Role.RECEIVE,
    "Five messages wait, and pages hold two, whatever the client asks for. No poke follows.",
    "It fetches until a page is empty.",
)
async def _short_pages(stage: Stage) -> None:
    ids = await stage.mail(5)
    stage.proxy.page_limit, stage.proxy.swallow_pokes = 2, True
    await stage.client.receive()
    await stage.received(ids)


@moment(
    "page-cut",
    Role.RECEIVE,
    "The connection breaks in the middle of a page, a few times. No poke follows.",
    "It fetches again, and saves the whole page.",
)
async def _page_cut(stage: Stage) -> None:
    await _fetches_fail(stage, 5, cut)


@moment(
    "fetch-unavailable",
    Role.RECEIVE,
    "Fetches are answered 503, a few times. No poke follows.",
    "It fetches again until it has the page.",
)
async def _fetch_unavailable(stage: Stage) -> None:
    await _fetches_fail(stage, 1, instead(503, _DOWN, later(1)))


@moment(
    "token-expires-while-receiving",
    Role.RECEIVE,
    "An acknowledgement is answered 401, since the token has expired.",
    "It asks for a new token and goes on.",
)
async def _token_receive(stage: Stage) -> None:
    async def expire(exchange: Exchange) -> None:
        stage.refuse_token()
        await stage.expired(exchange)

    ids = await stage.mail(3)
    stage.proxy.plant(expire, acknowledgements)
    await stage.client.receive()
    await stage.received(ids)


@moment(
    "acknowledgement-lost",
    Role.RECEIVE,
    "The router deletes what is acknowledged, and its answer is lost, with the next page in it.",
    "It goes on until everything is saved.",
)
async def _acknowledgement_lost(stage: Stage) -> None:
    ids = await stage.mail(5)
    stage.proxy.page_limit = 2
    stage.proxy.plant(lose, acknowledgements)
    await stage.client.receive()
    await stage.received(ids)


async def _killed_at_acknowledgement(stage: Stage) -> list[str]:
    """Kill the client when its first acknowledgement arrives, which the router does not get; what was in it."""
    arrived = list[str]()

    async def kill(exchange: Exchange) -> None:
        arrived.extend(exchange.request.acknowledged())
        exchange.abort("the client is killed")

    stage.proxy.plant(kill, acknowledgements)
    await stage.client.receive()
    await stage.until(lambda: bool(arrived), lambda: "it acknowledged nothing")
    await stage.client.kill()
    return arrived


@moment(
    "acknowledged-too-early",
    Role.RECEIVE,
    "The client is killed at the moment at which it acknowledges.",
    "What it acknowledged is saved by then.",
)
async def _too_early(stage: Stage) -> None:
    await stage.mail(3)
    arrived = await _killed_at_acknowledgement(stage)
    saved = dict(await stage.client.saved())
    if lost := [id_ for id_ in arrived if id_ not in saved]:
        raise Failed(f"it acknowledged {len(arrived)} messages and had saved {len(arrived) - len(lost)}: mail is lost")


@moment(
    "comes-again",
    Role.RECEIVE,
    "The client is killed between saving and acknowledging, and started again: the messages come again.",
    "It saves each once, and acknowledges them.",
)
async def _comes_again(stage: Stage) -> None:
    ids = await stage.mail(3)
    await _killed_at_acknowledgement(stage)
    await stage.client.receive()
    saved = [id_ for id_, _ in await stage.received(ids)]
    if twice := {id_ for id_ in saved if saved.count(id_) > 1}:
        raise Failed(f"it has {len(twice)} of 3 messages more than once")


@moment(
    "order",
    Role.RECEIVE,
    "Eight messages come in pages of two, with a broken page and a new connection between.",
    "It saves them in their order.",
)
async def _order(stage: Stage) -> None:
    ids = await stage.mail(6)
    stage.proxy.page_limit = 2
    stage.proxy.plant(cut, pages)
    await stage.client.receive()
    await stage.received(ids)
    ids += await _close(stage, 1001, 2)
    first = dict.fromkeys(id_ for id_, _ in await stage.received(ids))
    places = [ids.index(id_) + 1 for id_ in first if id_ in ids]
    if places != sorted(places):
        raise Failed(f"it saved them in the order {places}")


async def _online(stage: Stage) -> None:
    """Return when the client is connected, has received a message, and rests."""
    await stage.client.receive()
    await stage.until(stage.proxy.connected, lambda: "it opened no WebSocket")
    await _rests(stage)
    await stage.received(await stage.mail(1))
    await _rests(stage)


async def _rests(stage: Stage) -> None:
    """Return when the client has fetched an empty page since its handshake, or fetches nothing for a while."""
    deadline = stage.proxy.elapsed() + REST_SECONDS
    await stage.until(
        lambda: stage.proxy.emptied > stage.proxy.handshakes[-1] or stage.proxy.elapsed() > deadline, lambda: ""
    )


async def _fetches_fail(stage: Stage, count: int, fault: Fault) -> None:
    """``count`` messages wait, fetches meet ``fault``, and no poke follows."""
    ids = await stage.mail(count)
    stage.proxy.swallow_pokes = True
    _until_connected(stage, fault)
    await stage.client.receive()
    await stage.received(ids)


def _until_connected(stage: Stage, fault: Fault) -> None:
    """Plant ``fault`` on fetches, up to two while the client is connected: only a retry brings another then.

    A client may fetch at its start and when its socket is open, and the first may arrive when the proxy knows of the
    socket already.
    """
    tries = connected = 0

    async def counted(exchange: Exchange) -> None:
        nonlocal tries, connected
        tries += 1
        connected += stage.proxy.connected()
        await fault(exchange)

    def on(request: Request) -> bool:
        return pages(request) and connected < CONNECTED_TRIES and tries < MOST_TRIES

    stage.proxy.plant(counted, on, times=math.inf)


async def _close(stage: Stage, code: int | None, count: int) -> list[str]:
    """Close the client's sockets, and send it messages before it has another."""
    stage.proxy.lets_in.clear()
    for socket in stage.proxy.sockets:
        await socket.close(code)
    ids = await stage.mail(count)
    stage.proxy.lets_in.set()
    return ids


def _closed(code: int | None, name: str, why: str, expected: str) -> None:
    @moment(f"socket-{name}", Role.RECEIVE, f"The WebSocket {why}, and a message is sent.", expected)
    async def _play(stage: Stage) -> None:
        await _online(stage)
        if code == 4401:
            stage.refuse_token()
        before, at = len(stage.proxy.handshakes), stage.proxy.elapsed()
        ids = await _close(stage, code, 1)
        more = REPLACED_PATIENCE if code == REPLACED else 0.0
        await stage.until(lambda: len(stage.proxy.handshakes) > before, lambda: "it did not connect again", more)
        waited = stage.proxy.handshakes[before] - at
        if code == REPLACED and waited < REPLACED_SECONDS:
            raise Failed(f"it connected again after {waited:.1f} s")
        await stage.until(stage.proxy.connected, lambda: "its new connections were refused", more)
        await stage.received(ids, more)


_AGAIN = "It connects again, and receives the message."
_closed(1001, "closed-1001", "is closed with 1001, since the node stops", _AGAIN)
_closed(None, "broken", "breaks without a close frame (1006)", _AGAIN)
_closed(1013, "closed-1013", "is closed with 1013, since the user has too many connections", _AGAIN)
_closed(4410, "closed-4410", "is closed with 4410, since an operator disconnects the user", _AGAIN)
_closed(
    4401,
    "closed-4401",
    "is closed with 4401, since the token has expired",
    "It connects again with a new token, and receives the message.",
)
_closed(
    REPLACED,
    "closed-4409",
    "is closed with 4409, since a newer connection has its place",
    "It connects again after 15 s or more, and receives the message.",
)


@moment(
    "socket-blocked",
    Role.RECEIVE,
    "No WebSocket can be opened: a proxy breaks each handshake.",
    "It fetches by its timer, ROUTER_POLL_SECONDS, or between its tries to connect.",
    poll_seconds=1,
)
async def _blocked(stage: Stage) -> None:
    stage.proxy.plant(drop, handshakes, times=math.inf)
    await stage.client.receive()
    await stage.until(lambda: any(map(pages, stage.proxy.requests)), lambda: "it did not fetch")
    for _ in range(2):
        await stage.received(await stage.mail(1))


@moment(
    "poke-lost",
    Role.RECEIVE,
    "The WebSocket is open, and all pokes on it are lost.",
    "It fetches by its timer, ROUTER_POLL_SECONDS.",
    poll_seconds=1,
)
async def _poke_lost(stage: Stage) -> None:
    await _online(stage)
    stage.proxy.swallow_pokes = True
    for _ in range(2):
        await stage.received(await stage.mail(1))


@moment(
    "poke-while-fetching",
    Role.RECEIVE,
    "A message is poked while an answer without it is on its way.",
    "It fetches once more.",
)
async def _poke_while_fetching(stage: Stage) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        answer = await exchange.forward()
        if not answer.ids():
            held.set()
            await release.wait()
        await exchange.reply(answer)

    await _online(stage)
    stage.proxy.plant(hold, lambda request: pages(request) and not held.is_set(), times=math.inf)
    ids = await stage.mail(1)
    await stage.until(held.is_set, lambda: "it did not fetch until a page was empty")
    pokes = stage.proxy.pokes
    ids += await stage.mail(1)
    await stage.until(lambda: stage.proxy.pokes > pokes, lambda: "its WebSocket was not open any more")
    release.set()
    await stage.received(ids)


@moment(
    "unknown-fields",
    Role.RECEIVE,
    "A later router adds fields to pages, messages and envelopes.",
    "It passes over them.",
)
async def _unknown_fields(stage: Stage) -> None:
    def grown(answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        document = msgspec.json.decode(answer.body)
        for message in document["messages"]:
            message["lane"] = {"name": "normal", "place": [1, 2.5, None]}
            message["envelope"]["colour"] = True
        document["more"] = {"behind": 3}
        return Answer(200, answer.headers, msgspec.json.encode(document))

    ids = await stage.mail(3)
    stage.proxy.plant(changed(grown), pages, times=math.inf)
    await stage.client.receive()
    await stage.received(ids)


@moment(
    "older-router",
    Role.RECEIVE,
    "The router has no POST /api/messages/next and answers it with 404.",
    "It acknowledges and fetches by two requests.",
)
async def _older_router(stage: Stage) -> None:
    def unknown(request: Request) -> None:
        request.target = "/api/messages/later"

    ids = await stage.mail(5)
    stage.proxy.page_limit = 2
    stage.proxy.plant(asked(unknown), routed("POST /api/messages/next"), times=math.inf)
    await stage.client.receive()
    await stage.received(ids)


@moment(
    "welcome-page",
    Role.RECEIVE,
    "The network of a hotel answers a few fetches with 200 and a page of HTML. No poke follows.",
    "It takes that for no answer, and fetches again.",
)
async def _welcome(stage: Stage) -> None:
    await _fetches_fail(stage, 1, instead(200, _WELCOME, _HTML))


@moment(
    "router-away",
    Role.RECEIVE,
    "The router cannot be reached for 2 s, and a message is sent meanwhile.",
    "It connects again, and receives the message.",
)
async def _away(stage: Stage) -> None:
    await _online(stage)
    await stage.proxy.stop()
    ids = await stage.mail(1)
    await asyncio.sleep(AWAY_SECONDS)
    await stage.proxy.start()
    await stage.received(ids)
    await stage.until(stage.proxy.connected, lambda: "it opened no WebSocket again")

"""Limits of sending: for each sender, and for each sender and recipient."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest

from router.config import Limits
from router.core import accepting
from router.core.accepting import Acceptor
from router.errors import InvalidEnvelope, InvalidIdempotencyKey, RateLimited
from router.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.kept import Kept

pytestmark = pytest.mark.anyio


class Stage:
    """An acceptor, and the hand that holds its clock."""

    def __init__(self, *, rate: float = 1000, burst: int = 100_000, pair_rate: float = 5, pair_burst: int = 10) -> None:
        self.clock = ManualClock()
        self.kept = Kept()
        self.acceptor = Acceptor(
            self.kept,
            clock=self.clock,
            entropy=lambda count: b"x" * count,
            idempotency_secret=b"secret",
            max_bytes=100_000,
            rate=rate,
            burst=burst,
            pair_rate=pair_rate,
            pair_burst=pair_burst,
            metrics=Metrics(),
        )

    async def send(self, to: str, sender: str = "urn:sm:user:alice", key: str | None = None) -> float:
        """For how long the sender must wait instead; 0: it is accepted."""
        body = json.dumps({"recipientId": to}).encode()
        try:
            await self.acceptor.accept(sender, body, key)
        except RateLimited as error:
            return error.retry_after
        return 0.0

    async def sends(self, count: int, to: str, sender: str = "urn:sm:user:alice") -> Sequence[bool]:
        return [await self.send(to, sender) == 0 for _ in range(count)]


async def test_a_pair_has_a_limit_of_its_own() -> None:
    stage = Stage()
    assert await stage.sends(11, "bob") == [True] * 10 + [False]
    assert await stage.send("bob") == pytest.approx(0.2)
    assert await stage.send("carol") == 0, "another recipient is another pair"
    assert await stage.send("bob", "urn:sm:user:eve") == 0, "and so is another sender"
    stage.clock.advance(0.19)
    assert await stage.send("bob") == pytest.approx(0.01)
    stage.clock.advance(0.01)
    assert await stage.sends(2, "bob") == [True, False]
    stage.clock.advance(3600)
    assert await stage.sends(11, "bob") == [True] * 10 + [False], "and a long silence saves up no more than a burst"


async def test_names_of_a_pair_do_not_run_together() -> None:
    stage = Stage(pair_burst=1)
    assert await stage.send("urn:a:b:cd", "urn:a:b:c") == 0
    assert await stage.send("urn:a:b:c", "urn:a:b:cd") == 0
    assert await stage.send("bob", "urn:a:b:c") == 0
    assert await stage.send("urn:sm:user:bob", "urn:a:b:c") > 0, "one recipient, by either spelling"


async def test_a_send_that_one_limit_refuses_takes_nothing_of_the_other() -> None:
    stage = Stage(rate=0.001, burst=12)
    assert await stage.sends(20, "bob") == [True] * 10 + [False] * 10
    assert await stage.sends(3, "carol") == [True, True, False]
    assert await stage.send("dave") > 0, "the sender's own limit comes first"
    stage = Stage(rate=1, burst=10)
    assert await stage.sends(15, "bob") == [True] * 10 + [False] * 5
    stage.clock.advance(10)
    assert await stage.sends(10, "bob") == [True] * 10, "the pair's was whole again after two seconds"


async def test_what_is_malformed_takes_nothing_of_the_pair() -> None:
    stage = Stage(pair_burst=1)
    with pytest.raises(InvalidEnvelope):
        await stage.acceptor.accept("urn:sm:user:alice", b'{"recipientId":"bob","priority":"x"}')
    with pytest.raises(InvalidIdempotencyKey):
        await stage.send("bob", key="\n")
    assert await stage.sends(2, "bob") == [True, False]


async def test_a_large_message_counts_as_several() -> None:
    stage = Stage(pair_burst=10)

    async def send(size: int) -> float:
        body = json.dumps({"recipientId": "bob", "encryptedData": base64.b64encode(bytes(size)).decode()}).encode()
        try:
            await stage.acceptor.accept("urn:sm:user:alice", body)
        except RateLimited as error:
            return error.retry_after
        return 0.0

    for _ in range(2):
        assert await send(48 * 1024) == 0, "64 KiB in base64, and a little more: five sends"
    assert await stage.send("bob") == pytest.approx(0.2)
    assert await send(48 * 1024) == pytest.approx(1)
    assert await stage.send("carol") == 0


def test_one_sender_cannot_use_up_what_may_come_to_a_recipient() -> None:
    """RACES 48: with the defaults, not at once and not in the long run. Two can."""
    limits = Limits()
    assert limits.pair_burst * accepting.PAIR_BYTES < limits.inbound_bytes / 8
    assert limits.pair_rate * accepting.PAIR_BYTES < limits.inbound_bytes_per_second * 2 / 3


async def test_a_keyed_retry_counts() -> None:
    stage = Stage(pair_burst=2)
    assert [await stage.send("bob", key="k") == 0 for _ in range(3)] == [True, True, False]
    assert len({message.id for message in stage.kept.messages}) == 1


async def test_none_is_none() -> None:
    stage = Stage(rate=0, burst=1, pair_rate=0, pair_burst=1)
    assert all(await stage.sends(50, "bob"))


async def test_a_pair_is_kept_in_no_clear_word() -> None:
    stage = Stage()
    await stage.send("bob")
    assert stage.acceptor._pairs is not None
    (key,) = stage.acceptor._pairs._full_at
    assert len(key) == 16
    stage.acceptor._pair_secret = b"another"
    await stage.send("bob")
    assert len(stage.acceptor._pairs._full_at) == 2, "the hash is keyed"


async def test_pairs_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "REMEMBERED_PAIRS", 8)
    stage = Stage()
    for number in range(50):
        await stage.send(f"r{number}")
    assert stage.acceptor._pairs is not None
    assert len(stage.acceptor._pairs._full_at) == 8


async def test_nobody_pushes_out_a_pair_of_their_own() -> None:
    """With the defaults: whoever sends to others until this pair is forgotten could have sent to it meanwhile."""
    rate, burst, pair_rate, pair_burst = 50, 200, 5, 1000
    others_until_full = burst + rate * pair_burst / pair_rate
    assert 9 * others_until_full < accepting.REMEMBERED_PAIRS
    stage = Stage(rate=rate, burst=burst, pair_rate=pair_rate, pair_burst=10)
    assert await stage.sends(11, "bob") == [True] * 10 + [False]
    for number in range(burst - 10):
        assert await stage.send(f"r{number}") == 0
    assert await stage.send("bob") > 0

"""Limits of sending: for each sender, and for each sender and recipient."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from router.config import Limits
from router.core import send_limits
from router.core.acceptance import Acceptor
from router.core.send_limits import SendLimits, Statistics
from router.errors import InvalidEnvelope, InvalidIdempotencyKey, RateLimited
from router.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.kept import Kept

pytestmark = pytest.mark.anyio


class Watched(SendLimits):
    """Also notes the keys under which it is asked to count."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.senders: set[bytes] = set()
        self.pairs: set[bytes] = set()

    def admit(self, sender: bytes) -> None:
        self.senders.add(sender)
        super().admit(sender)

    def admit_message(self, sender: bytes, pair: bytes, size: int) -> None:
        self.senders.add(sender)
        self.pairs.add(pair)
        super().admit_message(sender, pair, size)


class Stage:
    """An acceptor, and the hand that holds its clock."""

    def __init__(
        self,
        *,
        rate: float = 1000,
        burst: int = 100_000,
        pair_rate: float = 5,
        pair_burst: int = 10,
        outbound_bytes: int = 0,
        outbound_bytes_per_second: float = 1,
        secret: bytes = b"x",
    ) -> None:
        self.clock = ManualClock()
        self.kept = Kept()
        self.limits = Watched(
            self.clock,
            lambda count: secret * count,
            rate=rate,
            burst=burst,
            pair_rate=pair_rate,
            pair_burst=pair_burst,
            outbound_bytes=outbound_bytes,
            outbound_bytes_per_second=outbound_bytes_per_second,
        )
        self.acceptor = Acceptor(
            self.kept,
            self.limits,
            clock=self.clock,
            entropy=lambda count: b"x" * count,
            idempotency_secret=b"secret",
            max_bytes=100_000,
            metrics=Metrics(),
        )

    async def send(self, to: str, sender: str = "urn:sm:user:alice", key: str | None = None, *, size: int = 0) -> float:
        """For how long the sender must wait instead of sending ``size`` sealed bytes; 0: it is accepted."""
        sealed = {"encryptedData": base64.b64encode(bytes(size)).decode()} if size else {}
        body = json.dumps({"recipientId": to, **sealed}).encode()
        try:
            await self.acceptor.accept(sender, body, key)
        except RateLimited as error:
            return error.retry_after
        return 0.0

    async def batch(self, *messages: tuple[str, int]) -> list[bool]:
        """Of each (recipient, bytes), whether it is accepted, where all are sent together."""
        batch = self.acceptor.batch("urn:sm:user:alice")
        for to, size in messages:
            sealed = base64.b64encode(bytes(size)).decode()
            batch.add(json.dumps({"recipientId": to, "encryptedData": sealed}).encode(), None)
        return [isinstance(outcome, str) for outcome in await batch.publish()]

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


async def test_the_key_of_a_pair_keeps_its_two_names_apart() -> None:
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
    for _ in range(2):
        assert await stage.send("bob", size=48 * 1024) == 0, "64 KiB in base64, and a little more: five sends"
    assert await stage.send("bob") == pytest.approx(0.2)
    assert await stage.send("bob", size=48 * 1024) == pytest.approx(1)
    assert await stage.send("carol") == 0


def test_one_sender_cannot_use_up_what_may_come_to_a_recipient() -> None:
    """RACES 48: with the defaults, not at once and not in the long run. Two can."""
    limits = Limits()
    assert limits.pair_burst * send_limits.PAIR_BYTES < limits.inbound_bytes / 8
    assert limits.pair_rate * send_limits.PAIR_BYTES < limits.inbound_bytes_per_second * 2 / 3


async def test_a_keyed_retry_counts() -> None:
    stage = Stage(pair_burst=2)
    assert [await stage.send("bob", key="k") == 0 for _ in range(3)] == [True, True, False]
    assert len({message.id for message in stage.kept.messages}) == 1


async def test_limits_of_zero_limit_nothing() -> None:
    stage = Stage(rate=0, burst=1, pair_rate=0, pair_burst=1)
    assert all(await stage.sends(50, "bob"))


async def test_a_sender_has_a_budget_of_bytes_over_all_recipients() -> None:
    stage = Stage(outbound_bytes=100_000, outbound_bytes_per_second=1000)
    sent = 0
    while not (wait := await stage.send(f"r{sent}", size=6000)):
        sent += 1
    costs = len(stage.kept.messages[0].envelope) + send_limits.MESSAGE_BYTES
    assert sent == 100_000 // costs
    assert wait == pytest.approx(((sent + 1) * costs - 100_000) / 1000, rel=0.01), "until this one has room"
    assert await stage.send("carol", "urn:sm:user:eve", size=6000) == 0, "another sender has another budget"
    stage.clock.advance(wait + 0.1)
    assert await stage.send("somebody", size=6000) == 0
    assert await stage.send("another", size=6000) > 0
    stage.clock.advance(30 * 86_400)
    assert len([1 for number in range(100) if not await stage.send(f"s{number}", size=6000)]) == sent, (
        "a long silence saves up no more"
    )


async def test_a_small_message_costs_what_its_rows_take() -> None:
    """Or who sends nothing but names could fill a disk by rows, and be within the budget."""
    stage = Stage(outbound_bytes=20_000, outbound_bytes_per_second=1)
    assert 10 < sum([not await stage.send(f"r{number}") for number in range(40)]) < 20


async def test_a_refusal_says_which_limit_it_was_and_when_to_try_again() -> None:
    stage = Stage(outbound_bytes=2000, outbound_bytes_per_second=100)
    await stage.send("bob", size=500)
    with pytest.raises(RateLimited) as refused:
        await stage.acceptor.accept("urn:sm:user:alice", b'{"recipientId":"carol"}')
    assert "over all recipients" in str(refused.value)
    assert "limits.outbound_bytes" in str(refused.value)
    assert f"wait {refused.value.retry_after:.1f} s" in str(refused.value)


async def test_what_the_budget_of_bytes_refuses_takes_nothing_of_other_limits() -> None:
    stage = Stage(rate=0.001, burst=7, pair_burst=2, outbound_bytes=5000, outbound_bytes_per_second=1000)
    assert await stage.send("bob", size=3000) == 0
    assert [await stage.send("bob", size=3000) > 0 for _ in range(10)] == [True] * 10
    stage.clock.advance(5)
    assert await stage.sends(3, "bob") == [True, True, False], "the pair had both of its sends"
    assert await stage.sends(1, "carol") == [True], "and the sender most of its seven"


async def test_what_the_limit_of_a_pair_refuses_takes_nothing_of_the_bytes() -> None:
    stage = Stage(pair_burst=1, outbound_bytes=10_000, outbound_bytes_per_second=0.001)
    assert await stage.sends(50, "bob") == [True] + [False] * 49
    assert await stage.send("carol", size=4000) == 0


async def test_a_full_budget_of_bytes_admits_a_message_larger_than_it() -> None:
    stage = Stage(outbound_bytes=1000, outbound_bytes_per_second=100)
    assert await stage.send("bob", size=4000) == 0
    assert await stage.send("carol") > 0


def test_the_budget_of_bytes_is_none_that_an_honest_sender_meets_and_fills_no_disk_in_a_day() -> None:
    """With the defaults; base64 makes 4 bytes of 3."""
    limits = Limits()
    largest = limits.envelope_bytes * 4 // 3 + send_limits.MESSAGE_BYTES
    assert limits.outbound_bytes > 3 * 1000 * largest, "three of the largest to each of a group of a thousand"
    assert limits.outbound_bytes_per_second * 86_400 > 500 * 1000 * 2 * 1024, "500 texts a day to such a group"
    disk = 10e9 - 268_435_456
    assert (disk - limits.outbound_bytes) / limits.outbound_bytes_per_second > 6 * 86_400


async def test_send_limits_know_names_only_as_keyed_hashes() -> None:
    kept: list[bytes] = []
    for secret in (b"x", b"y"):
        stage = Stage(outbound_bytes=100_000, secret=secret)
        for _ in range(2):
            assert await stage.send("bob") == 0
        assert stage.limits.statistics() == Statistics(senders=1, pairs=1, budgets=1)
        kept += stage.limits.senders | stage.limits.pairs
    assert [len(key) for key in kept] == [16] * 4
    assert len(set(kept)) == 4, "another secret makes other hashes"


async def test_the_key_of_a_sender_is_never_the_key_of_a_pair() -> None:
    """No name of a recipient makes the hash of a pair that of a sender alone."""
    stage = Stage(outbound_bytes=100_000)
    await stage.send("bob")
    assert stage.limits.senders.isdisjoint(stage.limits.pairs)


async def test_pairs_and_senders_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_limits, "REMEMBERED_PAIRS", 8)
    monkeypatch.setattr(send_limits, "REMEMBERED_SENDERS", 6)
    stage = Stage(outbound_bytes=100_000)
    for number in range(50):
        await stage.send(f"r{number}", f"urn:sm:user:s{number}")
    assert stage.limits.statistics() == Statistics(senders=6, pairs=8, budgets=6)


async def test_a_sender_cannot_evict_its_own_pair_from_the_limits() -> None:
    """With the defaults: whoever sends to others until this pair is forgotten could have sent to it meanwhile."""
    rate, burst, pair_rate, pair_burst = 50, 200, 5, 1000
    others_until_full = burst + rate * pair_burst / pair_rate
    assert 9 * others_until_full < send_limits.REMEMBERED_PAIRS
    stage = Stage(rate=rate, burst=burst, pair_rate=pair_rate, pair_burst=10)
    assert await stage.sends(11, "bob") == [True] * 10 + [False]
    for number in range(burst - 10):
        assert await stage.send(f"r{number}") == 0
    assert await stage.send("bob") > 0


async def test_in_a_batch_none_overtakes_one_that_a_limit_holds_up() -> None:
    """RACES 53: a smaller one would fit, and would be before what is sent again; to somebody else it goes. What is held
    back counts for nothing."""
    for stage in (Stage(outbound_bytes=20_000), Stage(pair_burst=3)):
        assert await stage.batch(("bob", 10), ("bob", 60_000), ("bob", 10), ("eve", 10)) == [True, False, False, True]
        assert [message.recipient[-3:] for message in stage.kept.messages] == ["bob", "eve"]
        assert await stage.batch(("bob", 10)) == [True]


async def test_a_batch_counts_what_its_messages_count_alone() -> None:
    stage = Stage(burst=3, rate=1)
    assert await stage.batch(*[("bob", 10)] * 5) == [True] * 3 + [False] * 2
    assert await stage.send("bob") > 0
    stage = Stage()
    assert await stage.batch(*[("bob", 10)] * 12) == [True] * 10 + [False] * 2
    assert await stage.send("bob") == pytest.approx(0.2)
    stage = Stage(outbound_bytes=3000)
    assert await stage.batch(*[("bob", 10)] * 5) == [True] * 2 + [False] * 3
    assert await stage.send("eve") > 0


async def test_a_message_held_back_takes_no_send() -> None:
    stage = Stage(burst=5, rate=1, pair_burst=1)
    assert await stage.batch(*[("bob", 10)] * 4, ("eve", 10)) == [True, False, False, False, True]
    assert await stage.batch(("carol", 10), ("dave", 10), ("erin", 10)) == [True] * 3

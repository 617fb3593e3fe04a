"""How users, ids and messages are written."""

from __future__ import annotations

import re
import struct
from collections import Counter
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.cluster import key_slot  # type: ignore[attr-defined]  # the same function as the servers'

from router import urn
from router.backends.redis import keys
from router.backends.redis.scripts import Scripts
from router.messages import Delivery, Lane, Message, Outcome, Queued
from tests.contract.stage import BOB, staged
from tests.support.clock import ManualClock
from tests.support.redis_servers import Cluster
from tests.support.stores_redis import RedisStores

part = st.text(st.characters(exclude_characters=":", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=20)
users = st.tuples(part, part, part).map(lambda parts: urn.parse(":".join(("urn", *parts))))
STRANGE = [
    "urn:a:b:{}",
    "urn:a:b:}{",
    "urn:a:b:{c}",
    "urn:a:b:%7D",
    "urn:}:{:}",
    "urn:a:b:c/d",
    "urn:a:b:__x__",
    "urn:ü:é:名",
]


@given(users, users)
def test_a_users_keys_share_a_slot_and_are_nobody_elses(one: str, other: str) -> None:
    """RACES 39."""
    own = keys.Keys("p").of(one)
    assert len({key_slot(key.encode()) for key in own}) == 1
    assert len(set(own)) == len(keys.PARTS)
    if one != other:
        assert not set(own) & set(keys.Keys("p").of(other))


@pytest.mark.parametrize("user", STRANGE)
def test_the_hash_tag_is_the_whole_user(user: str) -> None:
    for key in keys.Keys("p").of(user):
        tag = key[key.index("{") + 1 : key.index("}")]
        assert tag.replace("%7D", "}").replace("%25", "%") == user
        assert key_slot(key.encode()) == key_slot(tag.encode())


ids = st.one_of(
    st.text(max_size=40),
    st.uuids().map(str),
    st.uuids().map(lambda value: str(value).upper()),
    st.binary(min_size=15, max_size=17).map(lambda raw: raw.decode("latin-1")),
)


@given(ids, ids)
def test_ids_are_packed_and_unpacked(one: str, other: str) -> None:
    assert keys.unpack_id(keys.pack_id(one)) == one
    if one != other:
        assert keys.pack_id(one) != keys.pack_id(other)


@given(st.uuids())
def test_a_uuid_takes_16_bytes(value: UUID) -> None:
    assert keys.pack_id(str(value)) == value.bytes


@given(
    st.binary(max_size=100),
    st.sampled_from(Lane),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**52),
    st.integers(1, 2**33),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_a_message_comes_out_as_it_went_in(
    envelope: bytes, lane: Lane, ephemeral: bool, keyed: bool, time: int, attempt: int, checksum: int | None
) -> None:
    """Without a checksum, as an earlier version has written it."""
    message = Message("m1", BOB, envelope, lane, ephemeral, time, keyed, checksum)
    body = keys.pack_body(Delivery(message, 0, attempt), message, time + 1)
    sequence = time + 2
    place = sequence - keys.EXPRESS if lane is Lane.EXPRESS else sequence
    (found,) = keys.unpack_page(BOB, [keys.pack_id("m1"), str(place).encode(), body], announced=0)
    most = 2**32 - 1 if checksum is None else 31
    assert found == Queued(message, sequence, time + 1, attempts=min(attempt, most))


def test_an_earlier_version_reads_what_this_one_writes() -> None:
    """All but the attempts: nodes are replaced one by one."""
    message = Message("m1", BOB, b"{}", Lane.NORMAL, True, 5, True, 0xFFFF_FFFF)
    body = keys.pack_body(Delivery(message, 0, 3), message, 6)
    queued_at, accepted_at, flags, _ = struct.unpack_from(">QQBI", body)
    assert (queued_at, accepted_at, bool(flags & 1), bool(flags & 2), body[21:]) == (6, 5, True, True, b"{}")


@pytest.mark.anyio
@pytest.mark.parametrize("user", STRANGE)
async def test_strange_names_are_served_by_a_cluster(
    tmp_path: Path, redis_cluster: Cluster, clock: ManualClock, user: str
) -> None:
    """RACES 39: no script ever touches two slots (CROSSSLOT), and two users of like names stay strangers."""
    async with staged(RedisStores(tmp_path, redis_cluster.url, mode="cluster"), clock) as stage:
        others = [name for name in STRANGE if name != user]
        phone = await stage.connect(user)
        for lane in Lane:
            assert await stage.go(f"hot {lane.name}", user, lane=lane) is Outcome.HOT
        await stage.go("typing", user, ephemeral=True)
        for other in others:
            assert await stage.ids(other) == []
        assert await stage.ids(user) == ["hot EXPRESS", "hot NORMAL", "typing"]
        await stage.queue.acknowledge(user, ["hot EXPRESS"])
        assert await stage.online.disconnect([phone]) == [user]
        assert (await stage.migrator.migrate(user)).moved == 1
        assert await stage.ids(user) == ["hot NORMAL"]
        await stage.queue.acknowledge(user, ["hot NORMAL"])
        stage.clock.advance(3601)
        for _ in range(4):
            await stage.sweeper.sweep()
        assert (await stage.online.totals(None)).messages == 0


def test_every_script_says_what_it_does() -> None:
    """At its head: in words, then its keys and arguments where it has more than all have, and its result."""
    for file in files("router.backends.redis").joinpath("lua").iterdir():
        if file.name == "prelude.lua":
            continue
        head = list(takewhile(lambda line: line.startswith("--"), file.read_text().splitlines()))
        assert len(head[0]) > len("-- "), file.name
        assert any("Result: " in line for line in head), file.name
        used = set(re.findall(r"\b(ARGV)\[[2-9]\]|\b(KEYS)\[", file.read_text().partition("\n\n")[2]))
        for name in {one for pair in used for one in pair if one}:
            assert any(name in line for line in head), (file.name, name)


def test_a_script_begins_with_what_it_uses_and_no_more() -> None:
    """Redis makes each function again in each call."""
    prelude = files("router.backends.redis").joinpath("lua", "prelude.lua").read_text()
    defined = set(re.findall(r"^local function (\w+)", prelude, re.MULTILINE))
    for text in Scripts()._texts.values():
        code = re.sub(r"--.*", "", text)
        has = defined.intersection(re.findall(r"^local function (\w+)", code, re.MULTILINE))
        named = Counter(re.findall(r"\w+", code))
        assert defined.intersection(named) == has, "each function that is called is there"
        assert all(named[name] > 1 for name in has), "each that is there is called"

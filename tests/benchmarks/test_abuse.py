"""The scenario of abuse runs against a real server, and tells what became of whom."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import jwt
import pytest
from msgspec.structs import replace

from benchmarks.abusers import Attack
from benchmarks.attacks import READERS, attacks, forged, upgrade, users
from benchmarks.load_http import ack
from benchmarks.scenarios import abuse
from benchmarks.servers import Bench
from router import envelope

pytestmark = pytest.mark.anyio


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(abuse.SETTINGS, "ROUTER_SERVER__CLIENT_SECONDS", "1")
    monkeypatch.setattr(abuse, "ALONE_SECONDS", 0.1)
    return Bench(tmp_path, quick=True, rounds=1)


async def test_who_is_held_is_cut_off_and_counted(bench: Bench) -> None:
    seen = await abuse._under(bench, Attack(5, [b""]))
    assert (seen.outcome.held, seen.outcome.left) == (5, 0)
    assert seen.outcome.answers == {"none": 5}
    assert seen.reasons == {"silent": 5}
    assert len(seen.alone) > 0 < len(seen.meanwhile)


async def test_a_flood_is_refused_and_counted(bench: Bench) -> None:
    attack = Attack(3, [upgrade("nobody")], seconds=0.5, stays=False)
    seen = await abuse._under(bench, attack)
    assert seen.outcome.answers == {"401": seen.outcome.connections}
    assert seen.reasons == {"invalid_token": seen.outcome.connections}


async def test_a_user_who_insists_is_answered_on_one_connection(bench: Bench) -> None:
    request = ack(bench.token("urn:sm:user:mallory"), ["x"])
    seen = await abuse._under(bench, Attack(2, [request], seconds=0.3, keeps=True, user=True))
    assert seen.outcome.connections == 2
    assert set(seen.outcome.answers) == {"204"}
    assert seen.outcome.answers["204"] > 2
    assert min(len(seen.sends_alone), len(seen.sends_meanwhile)) > 0


def test_what_users_ask_for_is_valid(bench: Bench) -> None:
    for name, attack in users(bench.token, bench.count):
        assert attack.user
        for request in attack.first:
            head, _, body = request.partition(b"\r\n\r\n")
            if b"/api/send/batch" in head:
                for message in json.loads(body)["messages"]:
                    envelope.read(json.dumps(message["envelope"]).encode(), 2**18)
            elif b"/api/send" in head and "4,000 digits" not in name:
                envelope.read(body, 2**18)


def test_unknown_ids_are_acknowledged_by_the_owner_of_the_full_mailbox(bench: Bench) -> None:
    """Whose first page is as long as one may be; each id is one that no message has."""
    (attack,) = (attack for name, attack in users(bench.token, bench.count) if name.endswith("with a full mailbox"))
    ids = set[str]()
    for request in attack.first:
        head, _, body = request.partition(b"\r\n\r\n")
        (token,) = re.findall(rb"Bearer (\S+)", head)
        assert jwt.decode(token, options={"verify_signature": False})["sub"] == READERS
        ids |= set(json.loads(body)["messageIds"])
    assert len(ids) == len(attack.first) == attack.count


async def test_acknowledgements_of_unknown_ids_are_all_answered(bench: Bench) -> None:
    """They are no more than may be under way at once, so that none is refused and all are work."""
    (attack,) = (attack for name, attack in users(bench.token, bench.count) if name.endswith("with a full mailbox"))
    seen = await abuse._under(bench, replace(attack, seconds=0.3))
    assert set(seen.outcome.answers) == {"204"}
    assert seen.reasons == {}


def test_no_forged_token_is_a_good_one(bench: Bench) -> None:
    tokens = dict(forged(bench.directory))
    assert [jwt.get_unverified_header(token)["alg"] for token in tokens.values()] == [
        *("none", "HS256"),
        *["RS256"] * 4,
    ]
    assert jwt.decode(tokens["expired"], options={"verify_signature": False})["exp"] < time.time()
    assert len(tokens["of 1 MB"]) > 1_000_000


def test_each_kind_of_abuse_has_a_name_of_its_own(bench: Bench) -> None:
    every = [*attacks(bench.token, bench.directory, bench.count), *users(bench.token, bench.count)]
    names = [f"{attack.count} {name}" for name, attack in every]
    assert len(set(names)) == len(names) > 20

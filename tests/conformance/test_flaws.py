"""Deliberately broken clients: the kit finds each, in the moments meant for it and in no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router.conformance.kit import judge
from router.conformance.moments import MOMENTS
from tests.support.edge import EVENT_SECONDS

pytestmark = pytest.mark.anyio
CLIENT = Path(__file__).with_name("client.py")
IN_VAIN_SECONDS = 10.0
JOBS = 8
REPLACED = "socket-closed-4409"
"""It takes half a minute, and is played where it is meant."""
SOCKETS = {
    f"socket-{what}" for what in ("closed-1001", "broken", "closed-1013", "closed-4401", "closed-4409", "closed-4410")
}
TOKENS = {"token-expires-while-sending", "token-expires-while-receiving", "socket-closed-4401"}
FLAWS = {
    "": set[str](),
    "new-key": {"answer-lost"},
    "gives-up-on-503": {"unavailable"},
    "ignores-retry-after": {"rate-limited"},
    "gives-up-on-502": {"bad-gateway"},
    "repeats-what-is-refused": {"refused-for-good"},
    "sends-all-at-once": {"order-of-sends"},
    "keeps-its-token": TOKENS,
    "takes-bytes-for-text": {"bytes"},
    "one-page-a-poke": {"short-pages", "poke-while-fetching"},
    "takes-a-torn-page-for-none": {"page-cut"},
    "waits-for-a-poke-after-503": {"fetch-unavailable"},
    "dies-of-a-lost-acknowledgement": {"acknowledgement-lost"},
    "acknowledges-first": {"acknowledged-too-early"},
    "saves-again": {"comes-again"},
    "reverses-pages": {"order"},
    "never-connects-again": SOCKETS | {"router-away", "order"},
    "comes-back-at-once": {REPLACED},
    "waits-for-the-socket": {"socket-blocked"},
    "has-no-timer": {"poke-lost"},
    "is-deaf-while-it-fetches": {"poke-while-fetching"},
    "knows-all-fields": {"unknown-fields"},
    "needs-next": {"older-router"},
    "takes-any-200": {"welcome-page"},
    "dies-with-the-router": {"router-away"},
}
"""What is wrong with a client, and the moments in which that shows."""


@pytest.mark.parametrize("flaw", FLAWS)
async def test_it_is_found_in_the_moments_meant_for_it(
    flaw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all moments of its role: a client that sends badly receives as well as any."""
    monkeypatch.setenv("FLAW", flaw)
    meant = FLAWS[flaw]
    roles = {moment.role for moment in MOMENTS if not meant or moment.name in meant}
    played = [moment for moment in MOMENTS if moment.role in roles and (moment.name != REPLACED or REPLACED in meant)]
    folder = tmp_path / "kit"
    folder.mkdir()
    command = [sys.executable, str(CLIENT)]
    verdicts = []
    # What is meant to fail waits in vain; what is meant to pass has all the time that a busy machine takes.
    for name, patience in (("meant", IN_VAIN_SECONDS), ("others", EVENT_SECONDS)):
        some = [moment for moment in played if (moment.name in meant) == (name == "meant")]
        (folder / name).mkdir()
        verdicts += await judge(command, some, folder / name, patience=patience, jobs=JOBS)
    failed = {verdict.moment: verdict.seen for verdict in verdicts if not verdict.passed}
    assert set(failed) == meant, failed


def test_every_moment_has_a_flaw_that_it_finds() -> None:
    assert {moment.name for moment in MOMENTS} == set().union(*FLAWS.values())

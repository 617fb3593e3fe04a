"""The fuzzers' targets, for a few seconds: seeds and known inputs, hypothesis, and atheris where it is installed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import urn
from router.auth.verifier import Authenticator, Principal
from router.errors import InvalidUrn
from router.web import bearer_tokens
from router.web.headers import Headers
from tests.fuzz import targets
from tests.fuzz.__main__ import GUIDED, MISSING, fuzz, main
from tests.fuzz.targets import REGRESSIONS, TARGETS

EXAMPLES = {"envelopes": 150, "urns": 200, "tokens": 50, "handshakes": 200}
SECONDS = 3


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found_before(name: str) -> None:
    target, seeds = TARGETS[name]
    for data in [*seeds(), *REGRESSIONS[name]]:
        target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds(name: str) -> None:
    target, seeds = TARGETS[name]
    pieces = st.binary(max_size=8) | st.sampled_from(sorted({piece for seed in seeds() for piece in seed.split()}))

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES[name],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from([*seeds()]), st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 9), pieces), max_size=4)
    )
    def damaged(seed: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
        data = bytearray(seed)
        for place, length, piece in cuts:
            start = place % (len(data) + 1)
            data[start : start + length] = piece
        target(bytes(data))

    damaged()


@pytest.mark.skipif(not GUIDED, reason=MISSING)
@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(name: str) -> None:
    assert "Done" in fuzz(name, SECONDS)


# Teeth: each oracle sees a router that is wrong.


def test_a_broken_router_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(urn, "parse", lambda text: text)
        with pytest.raises(AssertionError):
            targets.urns(b"bob")
        patch.setattr(urn, "parse", refuse)
        with pytest.raises(AssertionError):
            targets.urns(b"urn:a:b:c")
    with monkeypatch.context() as patch:
        patch.setattr(Authenticator, "authenticate", believe)
        with pytest.raises((AssertionError, ValueError)):
            targets.tokens(b"\0" + b"a.b.c")
        with pytest.raises(AssertionError):
            targets.tokens(b'\1{"sub":"bob","exp":9e9}')
    with monkeypatch.context() as patch:
        patch.setattr(targets, "from_handshake", lambda fields: ("a.b.c", "chat"))
        with pytest.raises(AssertionError):
            targets.handshakes(b"Sec-WebSocket-Protocol: a.b.c")
    with monkeypatch.context() as patch:
        patch.setattr("router.envelope._encode", lambda wire: b"{}")
        with pytest.raises(AssertionError):
            targets.envelopes(b'{"recipientId":"bob"}')


def refuse(text: str) -> str:
    raise InvalidUrn("no")


async def believe(self: object, token: str) -> Principal:
    return Principal("urn:sm:user:eve", 0, b"")


def test_control_characters_are_no_blanks() -> None:
    """Found by the fuzzer: ``str.strip`` takes more than a header field's blanks."""
    headers = Headers({"headers": [(b"authorization", b"Bearer a.b.c\x1d \t")]})
    assert bearer_tokens.from_authorization(headers) == "a.b.c\x1d"


def test_an_unknown_fuzz_target_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["urn"])
    assert "there is no target urn; there are envelopes," in capsys.readouterr().err

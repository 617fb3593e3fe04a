"""Who takes part in ``bench``: names of its own with the embedded key, or the users of a file of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from router import urn
from router.cli.client_options import TOKEN_SECONDS
from router.cli.common import now
from router.clock import MICROSECONDS
from router.config import Config
from router.errors import ConfigError, InvalidInput, InvalidUrn

if TYPE_CHECKING:
    from router.auth.embedded import EmbeddedKey
    from router.bench.load import Cast
    from router.bench.people import Person

PEOPLE = 20
NAMED_FOR = 100
"""A sender with a generated name takes another after this many messages, or ``limits.send_rate`` would be measured."""


def made_up(config: Config, run: str, people: int | None, offline: float, senders: int) -> Cast:
    """Names that nobody has, by the embedded key; raises ``ConfigError``."""
    from router.auth.embedded import EmbeddedKey  # noqa: PLC0415 - brings cryptography
    from router.bench.people import Person  # noqa: PLC0415 - brings httpx and websockets

    if not config.auth.signs_tokens:
        raise ConfigError(
            "auth.kind is jwks, so tokens come from your identity service: write users and their tokens into a file, "
            "one user and one token per line, and name it with --tokens"
        )
    key = EmbeddedKey.open(config.embedded.data_dir)
    names = [f"urn:sm:bench:{run}-{number}" for number in range(people or PEOPLE)]
    persons = [Person(name, _kept(key, name)) for name in names]
    tokens = [_renamed(key, f"urn:sm:bench:{run}-sender-{number}") for number in range(senders)]
    return _cast(persons, offline, tokens, made_up=True)


def _kept(key: EmbeddedKey, name: str) -> Callable[[], str]:
    """What gives the same token until half of its time is over."""
    kept, until = "", 0

    def token() -> str:
        nonlocal kept, until
        at = now()
        if at >= until:
            kept, until = key.sign(name, at, TOKEN_SECONDS), at + TOKEN_SECONDS * MICROSECONDS // 2
        return kept

    return token


def _renamed(key: EmbeddedKey, name: str) -> Callable[[], str]:
    kept = ""
    counts = itertools.count()

    def token() -> str:
        nonlocal kept
        turn, spent = divmod(next(counts), NAMED_FOR)
        if not spent:
            kept = key.sign(f"{name}-{turn}", now(), TOKEN_SECONDS)
        return kept

    return token


def of_file(path: Path, people: int | None, offline: float, senders: int) -> Cast:
    """The first ``people`` of the file receive, all of them send in turn; raises ``InvalidInput`` and ``OSError``."""
    known = _read(path)
    if people is not None and people > len(known):
        raise typer.BadParameter(f"{path} has {len(known)} users", param_hint="--people")
    tokens = [person.token for person in itertools.islice(itertools.cycle(known), senders)]
    return _cast(known[: people or PEOPLE], offline, tokens, made_up=False)


def _cast(persons: Sequence[Person], offline: float, tokens: Sequence[Callable[[], str]], *, made_up: bool) -> Cast:
    from router.bench.load import Cast  # noqa: PLC0415 - brings httpx and websockets

    away = round(offline * len(persons))
    return Cast(persons[away:], persons[:away], tokens, made_up)


def _read(path: Path) -> Sequence[Person]:
    lines = enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
    persons = [_person(path, number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    if not persons:
        raise InvalidInput(f"{path} holds no users; write one user and one token per line")
    if len({person.user for person in persons}) < len(persons):
        raise InvalidInput(f"{path} names a user twice")
    return persons


def _person(path: Path, number: int, line: str) -> Person:
    """Words about a line never quote it: it holds a token."""
    from router.bench.people import Person  # noqa: PLC0415 - brings httpx and websockets

    where = f"{path}, line {number}"
    name, _, token = line.strip().partition(" ")
    token = token.strip()
    try:
        user, owner = urn.parse(name), urn.parse(_owner(token))
    except InvalidUrn:
        raise InvalidInput(f"{where}: write a user, a space, and a token of that user (a JWT)") from None
    if user != owner:
        raise InvalidInput(f"{where}: the token belongs to {owner}, not to {user}")
    return Person(user, lambda: token)


def _owner(token: str) -> str:
    """Whom a token is of, by its own words: the router is to believe them, not this command."""
    import jwt  # noqa: PLC0415 - brings cryptography

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return ""
    handle = claims.get("handle")
    return str(claims.get("sub", "") if handle is None else handle)

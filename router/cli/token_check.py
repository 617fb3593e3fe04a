"""``router token check``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import jwt
import typer
from msgspec import Struct

from router import logs
from router.auth.authenticator import open_authenticator
from router.auth.documents import mark
from router.auth.embedded import check_made
from router.auth.verifier import Authenticator, Principal
from router.cli.common import configured, now, timestamp
from router.cli.exits import Code
from router.cli.output import Table, json_document, line, show, span
from router.clock import MICROSECONDS
from router.config import Config
from router.config.sources import masked_url
from router.errors import Unauthorized
from router.factory import Factory

STANDARD_INPUT = "-"
TIMES = ("exp", "iat", "nbf")
LONGEST_VALUE = 200
"""Characters of a claim that the table shows; ``--json`` has the rest."""


class Key(Struct, frozen=True):
    kid: str | None
    algorithm: str


class Verdict(Struct, frozen=True):
    """``token check --json``."""

    at: str
    accepted: bool
    reason: str | None
    """Why it is refused, in one stable word: a ``reason`` of the metric ``router_requests_refused_total``."""
    why: str | None
    """The same in plain English, as the router answers it."""
    user: str | None
    """Whom an accepted token names, as a URN."""
    valid_until: str | None
    """When an accepted token stops working: its ``exp`` and ``auth.leeway_seconds`` after that."""
    remaining_seconds: float | None
    """The time until then."""
    key: Key | None
    """The key that signed an accepted token."""
    trusted_keys: list[Key]
    """All keys that may sign tokens now, once for each algorithm."""
    header: dict[str, Any] | None
    """What the token says of itself; nothing vouches for it unless the token is accepted. Null if it is not a JWT."""
    claims: dict[str, Any] | None
    """What the token claims; the same holds."""


def check(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token; - reads it from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Say whether the router accepts a token, and if not, why.

    Verifies the token as the services do, with the configured keys: the embedded one, or those that the identity
    service publishes at this moment. Shows whom it names, which key signed it, until when it is valid, and its claims.
    The signature is never shown, and nothing is logged. Other users of this machine can see the arguments of commands,
    so use - for a token that still works.

    Exits with 77 if the token is refused, and with 69 if the identity service gives no keys. A token for the user
    "check" comes from `router token urn:sm:user:check`.

    Example:

      router token check - < token.txt
      router token check "$TOKEN" --json | jq -r .reason
    """
    config = configured(ctx)
    logs.configure("auto", "error")  # what cannot be fetched is the error of this command
    _look_at(config)
    text = sys.stdin.buffer.read().decode("ascii", "replace") if token == STANDARD_INPUT else token
    verdict = asyncio.run(_check(config, text.strip()))
    if as_json:
        json_document(verdict)
    else:
        _tell(verdict)
    if not verdict.accepted:
        raise typer.Exit(Code.DENIED)


def _look_at(config: Config) -> None:
    if config.auth.signs_tokens:
        check_made(config.embedded.data_dir)
        where = f"the key in {config.embedded.data_dir}"
    else:
        where = f"the keys of {masked_url(config.auth.jwks_url or config.auth.identity_service_url or '')}"
    typer.echo(f"looking at {where}", err=True)


async def _check(config: Config, token: str) -> Verdict:
    async with (
        Factory(config) as factory,
        open_authenticator(config, factory.clock, factory.tasks, factory.chance) as authenticator,
    ):
        # First: where no key is known, this says so, and not that the token is bad.
        await authenticator.keys()
        try:
            principal = await authenticator.authenticate(token)
        except Unauthorized as error:
            return await _verdict(authenticator, token, refused=error)
        return await _verdict(authenticator, token, principal)


async def _verdict(
    authenticator: Authenticator, token: str, principal: Principal | None = None, refused: Unauthorized | None = None
) -> Verdict:
    keys, at = await authenticator.keys(), now()
    signer = next((key for key in keys if principal is not None and mark(key) == principal.key), None)
    header, claims = _said(token)
    return Verdict(
        at=timestamp(at),
        accepted=principal is not None,
        reason=refused.reason if refused else None,
        why=str(refused) if refused else None,
        user=principal.user if principal else None,
        valid_until=timestamp(principal.expires_at) if principal else None,
        remaining_seconds=(principal.expires_at - at) / MICROSECONDS if principal else None,
        key=_named(signer) if signer else None,
        trusted_keys=[_named(key) for key in keys],
        header=header,
        claims=claims,
    )


def _named(key: jwt.PyJWK) -> Key:
    return Key(key.key_id, key.algorithm_name)


def _said(token: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Header and claims of ``token``, true or not."""
    try:
        said = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None, None
    return said["header"], said["payload"]


def _tell(verdict: Verdict) -> None:
    said = [*(verdict.header or {}).items(), *(verdict.claims or {}).items()]
    trusted = [[key.kid or "none", key.algorithm] for key in verdict.trusted_keys]
    if verdict.accepted:
        assert verdict.key is not None
        assert verdict.remaining_seconds is not None
        line(f"accepted: it is {verdict.user} until {verdict.valid_until}, for {span(verdict.remaining_seconds)} more")
        line(f"signed by the key {verdict.key.kid or 'without kid'} ({verdict.key.algorithm})")
    else:
        line(f"refused ({verdict.reason}): {verdict.why}")
    line("")
    title = "It says" if verdict.accepted else "It says, true or not"
    tables = [Table(title, ["what", "value"], [[_shown(name), _value(name, value)] for name, value in said], "nothing")]
    show(tables if verdict.accepted else [*tables, Table("Trusted keys", ["kid", "algorithm"], trusted)])


def _value(name: str, value: object) -> str:
    shown = _shown(value)
    if name in TIMES and isinstance(value, int | float) and 0 <= value < 1e11:
        shown += f" ({timestamp(int(value * MICROSECONDS))})"
    return shown


def _shown(value: object) -> str:
    """As JSON, in which no control character reaches the terminal."""
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."

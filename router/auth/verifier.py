"""Verifying tokens, and remembering those that were verified."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jwt
from msgspec import Struct

from router import urn
from router.auth.documents import mark
from router.clock import MICROSECONDS, Clock
from router.config import Auth
from router.errors import InvalidUrn, Unauthorized

MAX_TOKEN_BYTES = 8192
REMEMBERED_TOKENS = 10_000


class Principal(Struct, frozen=True):
    """The user whom a verified token names."""

    user: str
    """Canonical URN."""
    expires_at: int
    """µs since 1970: the token's ``exp`` and the leeway after it. From then on it opens nothing and holds nothing."""
    key: bytes
    """The ``mark`` of the key that signed it. Once that is withdrawn it opens nothing and holds nothing."""


class KeySource(Protocol):
    """Where verification keys come from."""

    async def candidates(self, kid: str | None) -> Sequence[jwt.PyJWK]:
        """The keys that may have signed a token with this ``kid``; empty where there is none.

        Raises ``Unavailable`` while no key set was ever obtained.
        """
        ...

    async def look_again(self) -> bool:
        """Whether there may be other keys now: they were renewed because a token was verified by none of them."""
        ...

    def trusts(self, key: bytes) -> bool:
        """Whether the key with this ``mark`` is still one of them."""
        ...

    @property
    def age_seconds(self) -> float:
        """For how long nobody has said that these are the keys: one that was withdrawn since then is not known."""
        ...

    async def probe(self) -> None:
        """Raise ``Unavailable`` until a key was obtained; for readiness."""
        ...


class Authenticator:
    """Verifies tokens against pinned algorithms.

    A verified token is remembered for ``auth.remember_seconds``, but no longer than it lives and its key is named.
    """

    def __init__(self, keys: KeySource, rules: Auth, clock: Clock) -> None:
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        """By the digests of their tokens, each until a monotonic moment."""

    async def probe(self) -> None:
        await self._keys.probe()

    async def keys(self) -> Sequence[jwt.PyJWK]:
        """All that may have signed a token; raises ``Unavailable`` where none is known."""
        return await self._keys.candidates(None)

    def trusts(self, key: bytes) -> bool:
        """Whether the ``key`` of a ``Principal`` is still named."""
        return self._keys.trusts(key)

    @property
    def key_set_age_seconds(self) -> float:
        """For how long nobody has said which keys are to be trusted."""
        return self._keys.age_seconds

    async def authenticate(self, token: str) -> Principal:
        """The principal of ``token``; raises ``Unauthorized``, and ``Unavailable`` where no keys are known."""
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthorized("the token is not a JWT of at most 8 KiB")
        digest = hashlib.sha256(token.encode()).digest()
        principal = self._recall(digest)
        if principal is None:
            principal = await self._verify(token)
            self._remember(digest, principal)
        if principal.expires_at <= self._clock.now():
            self._remembered.pop(digest, None)
            raise Unauthorized("the token has expired; get a new one", "expired")
        return principal

    def _recall(self, digest: bytes) -> Principal | None:
        principal, until = self._remembered.get(digest, (None, 0.0))
        if principal is None or (self._clock.monotonic() < until and self.trusts(principal.key)):
            return principal
        del self._remembered[digest]
        return None

    def _remember(self, digest: bytes, principal: Principal) -> None:
        self._remembered[digest] = principal, self._clock.monotonic() + self._rules.remember_seconds
        if len(self._remembered) > REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)

    @property
    def _leeway(self) -> int:
        return int(self._rules.leeway_seconds * MICROSECONDS)

    async def _verify(self, token: str) -> Principal:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise Unauthorized("the token is not a JWT") from error
        if header.get("alg") not in self._rules.algorithms:
            raise Unauthorized("the token's algorithm is not allowed", "algorithm")
        if "crit" in header:
            raise Unauthorized("the token requires an extension that the router does not support", "critical")
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise Unauthorized("the token's kid is not a string")
        keys = await self._fitting(kid, header["alg"])
        principal = self._signed(token, keys)
        if principal is None and await self._keys.look_again():
            # A new key may have no kid, or that of the one before.
            keys = await self._fitting(kid, header["alg"])
            principal = self._signed(token, keys)
        if principal is not None:
            return principal
        if keys:
            raise Unauthorized("the token's signature is invalid", "signature")
        raise Unauthorized("the token is not signed by a trusted key", "unknown_key")

    async def _fitting(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        return [key for key in await self._keys.candidates(kid) if _fits(key, algorithm)]

    def _signed(self, token: str, keys: Sequence[jwt.PyJWK]) -> Principal | None:
        """Whom the token names, where one of ``keys`` has signed it."""
        for key in keys:
            claims = self._decode(token, key)
            if claims is not None:
                return self._principal(claims, mark(key))
        return None

    def _decode(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any] | None:
        """The claims, where ``key`` has signed them."""
        try:
            # Times are checked below: by our clock, and with finer reasons.
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=self._rules.algorithms,
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                options={
                    "require": ["exp"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": self._rules.audience is not None,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except jwt.InvalidSignatureError:
            return None
        except jwt.InvalidIssuerError as error:
            raise Unauthorized("the token is from another issuer", "issuer") from error
        except jwt.InvalidAudienceError as error:
            raise Unauthorized("the token is for another audience", "audience") from error
        except jwt.MissingRequiredClaimError as error:
            raise Unauthorized(f"the token lacks the claim {error.claim}", "claims") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized("the token cannot be verified") from error
        return claims

    def _principal(self, claims: Mapping[str, Any], key: bytes) -> Principal:
        expires_at = _moment(claims, "exp")
        assert expires_at is not None, "PyJWT requires it"
        for name in ("nbf", "iat"):
            moment = _moment(claims, name)
            if moment is not None and moment > self._clock.now() + self._leeway:
                raise Unauthorized("the token is not valid yet", "not_yet_valid")
        return Principal(_user(claims), expires_at + self._leeway, key)


def _fits(key: jwt.PyJWK, algorithm: str) -> bool:
    # PyJWK settles on one algorithm per key; a token that names another is an attack or a mistake.
    return key.algorithm_name == algorithm and key.public_key_use in (None, "sig")


def _moment(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate (RFC 7519, section 2) in µs since 1970."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e12:
        raise Unauthorized(f"the token's {name} is not a time", "claims")
    return int(value * MICROSECONDS)


def _user(claims: Mapping[str, Any]) -> str:
    name = "sub" if claims.get("handle") is None else "handle"
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Unauthorized(f"the token's {name} must name the user", "subject")
    try:
        return urn.parse(value)
    except InvalidUrn as error:
        raise Unauthorized(f"the token's {name} is neither a URN nor a bare id", "subject") from error

"""What the library's errors mean: the router's own, with the original as cause."""

from __future__ import annotations

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from router.errors import Forbidden, Refused, RouterError, StorageFull, Unavailable

_PASSING = (ReadOnlyError, ClusterDownError, TryAgainError, AskError)
_PASSING_CODES = ("NOREPLICAS", "MASTERDOWN", "BUSY", "UNKILLABLE")
"""Refusals that pass by themselves, by their class or, where they have none, by their first word."""
_FORBIDDEN_IN_SCRIPT = "ACL failure in script"
"""A refusal with no class of its own, and no fault of the mail: it would be a dead letter."""
FOREIGN = (RedisError, RedisClusterException, OSError, TimeoutError)
"""All that the library raises."""


class Unauthenticated(Unavailable):
    """Redis refuses the user or the password of ``online.url``."""


class NoCluster(Unavailable):
    """The server is no node of a cluster, though ``online.mode`` says so."""


def translated(error: BaseException) -> RouterError:
    """The router's own error for one of the library's."""
    if isinstance(error, RedisClusterException) and error.__cause__ is not None:
        return translated(error.__cause__)
    if isinstance(error, RedisClusterException) and isinstance(error.__context__, NoPermissionError):
        # The library takes every refusal of CLUSTER SLOTS for that of a single server.
        return translated(error.__context__)
    text = str(error)
    result: RouterError = Unavailable(f"Redis cannot be reached or asked now ({text})")
    if isinstance(error, OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        result = StorageFull(f"Redis takes no more writes: give it memory, or its disk space ({text})")
    elif isinstance(error, NoPermissionError) or text.startswith(_FORBIDDEN_IN_SCRIPT):
        result = Forbidden(f"Redis lacks a right for the user of online.url; docs/redis.md has all of them ({text})")
    elif isinstance(error, AuthenticationError | AuthorizationError):
        result = Unauthenticated(f"Redis refuses the user or the password of online.url ({text})")
    elif isinstance(error, MasterNotFoundError):
        # The library's own text is a page of its settings.
        result = Unavailable(
            "no sentinel names a master that is up: is one reachable, may the router ask it, and is "
            "online.sentinel_service what they call it?"
        )
    elif isinstance(error, RedisTimeoutError | TimeoutError):
        result = Unavailable("Redis did not answer in time")
    elif "Cluster mode is not enabled" in text:
        result = NoCluster('online.mode is "cluster", but the server is not: set it to "single"')
    elif isinstance(error, ResponseError) and not isinstance(error, _PASSING) and not text.startswith(_PASSING_CODES):
        result = Refused(f"Redis refused a command of the router ({text})")
    return result

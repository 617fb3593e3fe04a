"""Translates redis-py's errors into the router's own, with the original as cause."""

from __future__ import annotations

from typing import Any, TypeGuard

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from router.errors import Forbidden, Refused, RouterError, StorageFull, Unavailable

_NO_MASTER = (ReadOnlyError, MasterDownError)
_NO_MASTER_CODES = ("NOREPLICAS", "UNBLOCKED")
"""Refusals of a server that is not a master, or no longer the one whose writes count: by class or, where redis-py has
no class for a refusal, by its first word."""
_FORBIDDEN_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""A missing ACL right, in the words of Redis 7.2 and newer, and of 7.0; redis-py has no class for it."""
_OF_THE_DATA = ("WRONGTYPE", "@user_script")
"""Words in refusals that no retry can help: a key does not have the type that the router gave it, or a script fails on
its data. All other refusals, unknown ones included, count as passing faults of the server: if they counted as faults of
the message, they would make it a dead letter."""
FOREIGN = (RedisError, RedisClusterException, OSError, TimeoutError)
"""Every error that redis-py raises."""


class Unauthenticated(Unavailable):
    """Redis refuses the user or the password of ``online.url``."""


class NoCluster(Unavailable):
    """``online.mode`` is ``cluster``, but the server is not a node of one."""


def no_master(result: Any) -> TypeGuard[Exception]:
    """Whether ``result`` is the refusal of a server that is not the master."""
    return isinstance(result, ResponseError) and (
        isinstance(result, _NO_MASTER) or str(result).startswith(_NO_MASTER_CODES)
    )


def translated(error: BaseException) -> RouterError:
    """The router's own error for an error of redis-py."""
    if isinstance(error, RedisClusterException) and error.__cause__ is not None:
        return translated(error.__cause__)
    if isinstance(error, RedisClusterException) and isinstance(error.__context__, NoPermissionError):
        # redis-py takes every refusal of CLUSTER SLOTS to mean that the server is not part of a cluster.
        return translated(error.__context__)
    text = str(error)
    result: RouterError = Unavailable(f"Redis cannot be reached or used now ({text})")
    if isinstance(error, OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        result = StorageFull(f"Redis refuses writes: give it more memory, or its disk more space ({text})")
    elif isinstance(error, NoPermissionError) or text.startswith(_FORBIDDEN_IN_SCRIPT):
        result = Forbidden(f"the user of online.url lacks a right in Redis; docs/redis.md lists all of them ({text})")
    elif isinstance(error, AuthenticationError | AuthorizationError):
        result = Unauthenticated(f"Redis refuses the user or the password of online.url ({text})")
    elif isinstance(error, MasterNotFoundError):
        # redis-py's own text lists all of its settings.
        result = Unavailable(
            "no sentinel names a master that is up: is one reachable, may the router ask it, and is "
            "online.sentinel_service what they call it?"
        )
    elif isinstance(error, RedisTimeoutError | TimeoutError):
        result = Unavailable("Redis did not answer in time")
    elif "Cluster mode is not enabled" in text:
        result = NoCluster('online.mode is "cluster", but the server is not: set it to "single"')
    elif type(error) is ResponseError and not no_master(error) and any(word in text for word in _OF_THE_DATA):
        result = Refused(f"Redis refused a command of the router ({text})")
    return result

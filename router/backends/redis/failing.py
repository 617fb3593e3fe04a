"""What the library's errors mean: the router's own, with the original as cause."""

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
"""How a server says that it is not a master, or no longer one whose writes count: by the class of the refusal or,
if it has none, by its first word."""
_FORBIDDEN_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""The same refusal in the words of Redis 7.2 and newer, and of 7.0; it has no class of its own."""
_OF_THE_DATA = ("WRONGTYPE", "@user_script")
"""What is in a refusal that a retry does not help: a key is not what the router made it, or a script stumbles over
what it was given. All others, those that nobody has thought of here too, are of the server and pass: taken for a
fault of the mail they would be its dead letter."""
FOREIGN = (RedisError, RedisClusterException, OSError, TimeoutError)
"""All that the library raises."""


class Unauthenticated(Unavailable):
    """Redis refuses the user or the password of ``online.url``."""


class NoCluster(Unavailable):
    """The server is not a node of a cluster, though ``online.mode`` says so."""


def no_master(result: Any) -> TypeGuard[Exception]:
    """Whether ``result`` is a refusal after which another server is to be looked for."""
    return isinstance(result, ResponseError) and (
        isinstance(result, _NO_MASTER) or str(result).startswith(_NO_MASTER_CODES)
    )


def translated(error: BaseException) -> RouterError:
    """The router's own error for one of the library's."""
    if isinstance(error, RedisClusterException) and error.__cause__ is not None:
        return translated(error.__cause__)
    if isinstance(error, RedisClusterException) and isinstance(error.__context__, NoPermissionError):
        # The library takes every refusal of CLUSTER SLOTS for that of a single server.
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
        # The library's own text is a page of its settings.
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

"""What the backend relies on inside redis-py is there."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from redis.asyncio import ConnectionPool, Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry

from router.backends.redis import internals
from tests.support.internals import changes, protocol

RELIED_ON = {
    AbstractConnection: protocol(internals.Connection),
    ConnectionPool: protocol(internals.Pool),
    Retry: protocol(internals.Retry),
    Sentinel: protocol(internals.Search),
    ClusterNode: protocol(internals.Node),
    NodesManager: protocol(internals.Nodes),
    Redis: ("__init__(redis_connect_func=meet)", "connection_pool"),
}


@pytest.mark.parametrize("library", RELIED_ON, ids=lambda library: library.__name__)
def test_the_library_has_what_is_relied_on(library: type) -> None:
    changed = list(changes(library, RELIED_ON[library]))
    assert not changed, f"redis-py {version('redis')} changed: {'; '.join(changed)}. {internals.__name__} names it"


def test_a_protocol_is_a_table() -> None:
    assert protocol(internals.Connection) == [
        "can_read()",
        "connect()",
        "disconnect(nowait=nowait)",
        "is_connected",
        "on_connect()",
        "read_response()",
        "retry",
        "send_command(*arguments)",
        "send_packed_command(packed, check_health=check_health)",
    ]

"""Disconnects a user for an operator: asks the nodes that hold the user's connections to close them.

A node is asked through the poke bus, which may lose an entry, so it is asked again until the connection has left the
store. Nothing else answers: a node that closes a connection ends its presence, as when a client leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from router.clock import Clock
from router.interfaces import PokeBus, PresenceCache
from router.messages import Connection

MARK = "!"
"""Prefix of a connection's id in an entry of the poke bus that asks its node to close it. No URN begins with it, so a
node of an earlier version pokes nobody. It names the connection and not the user, so that one of theirs that is opened
meanwhile stays, however often the entry comes."""
STEP_SECONDS = 0.05
"""How often to look whether the connections are gone."""
ASK_SECONDS = 1.0
"""How often to ask for those that are not."""
WAIT_SECONDS = 5.0
"""After this, a node that has not closed a connection counts as one that does not answer."""


class Disconnection(Struct, frozen=True):
    """What became of the connections that a user had."""

    closed: Sequence[Connection]
    left: Sequence[Connection]
    """Their nodes did not answer; their leases end by themselves, unless the nodes renew them."""


async def disconnect(user: str, presence: PresenceCache, pokes: PokeBus, clock: Clock) -> Disconnection:
    """Close the connections that ``user`` has now, on every node; raises ``Unavailable``."""
    held = left = await presence.connections(user)
    began = clock.monotonic()
    asked = -ASK_SECONDS
    while left and (waited := clock.monotonic() - began) < WAIT_SECONDS:
        if waited - asked >= ASK_SECONDS:
            asked = waited
            await pokes.publish([(connection.node, MARK + connection.id) for connection in left])
        await clock.sleep(STEP_SECONDS)
        ids = {connection.id for connection in await presence.connections(user)}
        left = [connection for connection in left if connection.id in ids]
    return Disconnection([connection for connection in held if connection not in left], left)

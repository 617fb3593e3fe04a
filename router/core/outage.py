"""Routing while the online store cannot be reached: unknown counts as offline.

Mail goes to cold with a sequence from the clock and is announced, so that nobody waits for the store. The ingress
keeps what was routed so until the store has been told of it: a pipeline that dies meanwhile leaves nothing that the
store will never know, and a recipient's next message is not routed elsewhere before.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.core.deliveries import Deliveries, InFlight
from router.messages import Outcome, Routed


class Outage:
    """Whether there is one, and what becomes of deliveries in it. Does no I/O.

    State: whether it lasts, and the highest sequence that anybody gave out, as far as it was seen.
    """

    def __init__(self) -> None:
        self.lasts = False
        self._highest = 0

    def saw(self, flight: InFlight, routed: Routed) -> Routed:
        """What becomes of ``flight``, of which the store says ``routed``. Sequences of an outage continue from the
        highest that was seen, whatever the clocks say.

        A message that has its sequence keeps it, when an outage comes before its cold write has worked, and also where
        the store has forgotten it and gives another: what was routed behind it may be in cold already.
        """
        known = flight.store_place
        if known is not None and routed.outcome is Outcome.COLD and known.sequence < routed.sequence:
            routed = known
        self._highest = max(self._highest, routed.sequence)
        if routed.sequence:
            flight.store_place = Routed(Outcome.COLD, routed.sequence, routed.queued_at)
        return routed

    def place(self, flight: InFlight, now: int) -> Routed:
        """What becomes of ``flight`` without the store.

        Its place stays the same when its cold write fails: the write may have worked nevertheless, and the store, if it
        routed the message after all, must hear of a copy in cold. Until it is owed, done or withdrawn the outage does
        not end.
        """
        if flight.message.ephemeral:
            # It takes a place too: the store has given it one, if it routed all after all and was not heard.
            self._next(now)
            return Routed(Outcome.DROPPED_OFFLINE)
        if flight.outage_place is None:
            flight.outage_place = flight.store_place or Routed(Outcome.COLD, self._next(now), now)
        return flight.outage_place

    def _next(self, now: int) -> int:
        self._highest = max(self._highest + 1, now)
        return self._highest

    def withdraw(self, flights: Iterable[InFlight]) -> None:
        """Cold can never take the first of these, and has not been asked to take those behind it: the outage does not
        wait for them."""
        for flight in flights:
            flight.outage_place = None

    def end(self, deliveries: Deliveries) -> None:
        """The store can be reached: the outage ends if nothing is owed and nobody is about to owe anything."""
        self.lasts = deliveries.owed > 0 or deliveries.have_outage_place()

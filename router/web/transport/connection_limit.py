"""How many connections may be open at once."""

from __future__ import annotations


class ConnectionLimit:
    """Counts the connections of all ports that share it."""

    def __init__(self, most: int | None = None) -> None:
        """``most`` may be open at once; any number, if unset."""
        self.most = most
        self.open = 0

    def enter(self) -> bool:
        """A connection is open; whether it may stay. ``leave`` is due in any case."""
        self.open += 1
        return self.most is None or self.open <= self.most

    def leave(self) -> None:
        """A connection has ended."""
        self.open -= 1

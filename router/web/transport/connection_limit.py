"""How many connections may be open at once."""

from __future__ import annotations


class ConnectionLimit:
    """Counts the connections of all ports that share it."""

    def __init__(self, most: int | None = None) -> None:
        """``most`` may be open at once; unlimited if ``None``."""
        self.most = most
        self.open = 0

    def enter(self) -> bool:
        """Count a connection that opened; returns whether it may stay. The caller calls ``leave`` in either case."""
        self.open += 1
        return self.most is None or self.open <= self.most

    def leave(self) -> None:
        """A connection has ended."""
        self.open -= 1

"""Nothing is learned about another user, over any backend. A backend's test subclasses this, and says where each world
has its stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from tests.support.stores import Stores
from tests.worlds.client import Answer
from tests.worlds.judge import difference, view
from tests.worlds.people import VICTIMS, Seen, Victim

Fresh = Callable[[str], AbstractAsyncContextManager[Stores]]
"""Stores in which nothing is, by a name."""


class WorldsContract:
    """The same router, the same stranger, the same moments; only a victim's state differs."""

    victims: Sequence[type[Victim]] = VICTIMS
    """Whose states are compared with the first."""

    async def test_a_stranger_sees_the_same_whatever_a_victim_does(self, anyio_backend: str, fresh: Fresh) -> None:
        """RACES 49: the stranger does what ``tests/worlds/program.py`` says."""
        del anyio_backend
        views = {}
        for victim in self.victims:
            async with fresh(victim.__name__) as stores:
                views[victim] = await view(stores, victim)
        first, *others = self.victims
        assert_telling(views[first])
        for other in others:
            found = difference(views[first], views[other])
            assert not found, f"{other.__doc__} {found}"


def assert_telling(seen: list[Seen]) -> None:
    """What was seen is not nothing: mail came, pokes came, and each kind of answer."""
    whats = [one.what for one in seen]
    answers = [answer for what in whats if isinstance(what, list) for answer in what if isinstance(answer, Answer)]
    statuses = {int(answer.status.split()[1]) for answer in answers}
    assert statuses >= {200, 202, 204, 400, 401, 404, 405, 415, 426, 429}
    assert sum(b'"messages":[{' in answer.body for answer in answers) >= 6
    assert [what for what in whats if isinstance(what, bool)] == [True] * 17

"""What a backend brings: one object for each kind of store, on which all hangs that the router asks of that store.

``router.backends.registry`` names them all. A backend is a folder with one class that is ``final``, extends the
classes below whose parts it keeps, and says in the registry where it is.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct

from router.clock import Clock
from router.config import Config
from router.config.places import Role, kept_by
from router.errors import ConfigError
from router.findings import Check, Finding
from router.interfaces import (
    ColdQueue,
    DeadLetterQueue,
    DeadLetters,
    IngressConsumer,
    IngressProducer,
    OnlineStore,
    PokeBus,
    PushNotifier,
)
from router.messages import DeadLetter
from router.metrics import Metrics
from router.needs import Need
from router.timekeeping import Timekeeper


class Tools(Struct, frozen=True):
    """What the factory hands each backend beside the configuration."""

    clock: Clock
    timekeeper: Timekeeper
    chance: random.Random
    metrics: Metrics
    in_line: bool = False
    """Blocking calls run where they are made, and no thread is started."""


class Upkeep(Struct, frozen=True):
    """What a service runs beside its work, as long as it runs."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    limited: Callable[[], str]
    """What is not served at the moment, and why; empty while all is."""


class Backend(ABC):
    """One kind of store, as the configuration sets it; made without touching anything.

    It is opened as an async context manager and then hands out what keeps its roles. Opening raises ``ConfigError``
    and ``Unavailable``. All but the components can be asked of one that is not open.
    """

    def __init__(self, config: Config, tools: Tools) -> None:
        self._config = config
        self._clock = tools.clock
        self._timekeeper = tools.timekeeper
        self._chance = tools.chance
        self._metrics = tools.metrics
        self._in_line = tools.in_line
        self._stack = AsyncExitStack()
        self.roles = kept_by(config, self.name)
        """What it keeps by this configuration."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await self._open(opening)
            self._stack = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    @abstractmethod
    async def _open(self, stack: AsyncExitStack) -> None:
        """Open what the components work with; ``stack`` closes it, also where the rest cannot be opened."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the configuration calls this kind."""

    @property
    def local(self) -> bool:
        """Whether one machine holds what it keeps: its clock is that machine's, and all services run there."""
        return False

    @property
    @abstractmethod
    def fix(self) -> str:
        """What to do when it does not answer."""

    @abstractmethod
    def address(self, role: Role) -> str:
        """Where it keeps ``role``, in words for people: no server is asked, and no password is told."""

    def check_machine(self, *, trial: bool) -> None:  # noqa: B027 - most need nothing of it
        """Raise ``DataDirError`` where this machine cannot hold it; ``trial``: make its folder for that if missing."""

    def is_made(self) -> bool:
        """Whether there is anything that this user could try."""
        return True

    def check_made(self) -> None:  # noqa: B027 - most cannot be looked at from here
        """Raise ``DataDirError`` where no router has run yet, so that a command that only looks would find nothing."""

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        """What ``router setup`` makes, in the order in which it can be made, as long as the block lasts."""
        yield []

    def settings(self) -> Iterator[Finding]:
        """For ``router doctor``: what the configuration alone says."""
        yield from ()

    def checks(self) -> list[Check]:
        """For ``router doctor``: all there is to look at beside the roles, which are tried over the seams."""
        return []

    def upkeep(self) -> list[Upkeep]:
        """What each service runs that has opened this."""
        return []


class IngressBackend(Backend):
    """Keeps accepted messages, and dead letters."""

    @abstractmethod
    def producer(self) -> IngressProducer: ...

    @abstractmethod
    def consumer(self) -> AbstractAsyncContextManager[IngressConsumer]: ...

    @abstractmethod
    def dead_letters(self) -> DeadLetters: ...

    @abstractmethod
    def dead_letter_queue(self) -> DeadLetterQueue: ...

    @abstractmethod
    def letters_elsewhere(self) -> str:
        """Where to read dead letters that this cannot list; empty where it lists them."""

    def dead_letter_box(self) -> DeadLetterBox:
        """The dead letters, to look at; raises ``ConfigError`` where this cannot list them."""
        raise ConfigError(self.letters_elsewhere())


class DeadLetterBox(DeadLetterQueue, Protocol):
    """Dead letters that are looked at, and counted, without being taken."""

    async def count(self) -> int: ...

    async def list(self, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """The letters behind number ``after``, in order, each with its number."""
        ...


class OnlineBackend(Backend):
    """Keeps presence and the hot queue."""

    @abstractmethod
    def online_store(self, pokes: PokeBus) -> OnlineStore:
        """``pokes`` is that of the backend which ``online.poked_by`` names."""


class PokesBackend(Backend):
    """Carries pokes."""

    @abstractmethod
    def poke_bus(self) -> PokeBus: ...


class ColdBackend(Backend):
    """Keeps the cold queue."""

    @abstractmethod
    def cold_queue(self) -> ColdQueue: ...


class PushBackend(Backend):
    """Takes push commands."""

    @abstractmethod
    def push_notifier(self) -> PushNotifier: ...

    @abstractmethod
    def commands_elsewhere(self) -> str:
        """Where the push commands go that this cannot list; empty where it lists them."""

    def outbox(self) -> Outbox:
        """The push commands, to look at or to take; raises ``ConfigError`` where this cannot list them."""
        raise ConfigError(self.commands_elsewhere())


class OutboxEntry(Struct, frozen=True):
    """One push command that was not taken yet."""

    number: int
    """Rises with each command; identifies it for ``Outbox.remove``."""
    id: str
    recipient: str
    command: bytes
    at: int
    """µs since 1970."""


class Outbox(Protocol):
    """The reading end of push commands that wait for a notification service."""

    async def remove(self, numbers: Sequence[int]) -> None:
        """These were taken."""
        ...

    async def list(self, after: int, limit: int) -> list[OutboxEntry]:
        """The commands behind number ``after``, in order."""
        ...

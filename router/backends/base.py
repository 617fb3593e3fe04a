"""The interface of a backend: one object for each kind of store, which answers everything that the router asks of it.

A backend is a folder with one ``final`` class, which extends those classes below whose roles it keeps.
``router.backends.registry`` has a line for each backend.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct

from router.backups import Backup, Progress
from router.books import Books, Unbalanced
from router.clock import Clock
from router.config import Config
from router.config.roles import Role, kept_by
from router.errors import ConfigError
from router.findings import Check, Finding
from router.interfaces import (
    ColdQueue,
    DeadLetterQueue,
    DeadLetters,
    IngressConsumer,
    IngressProducer,
    MessageTraces,
    OnlineStore,
    PokeBus,
    PushNotifier,
    RoutingIngress,
    TraceContexts,
)
from router.messages import DeadLetter
from router.metrics import Metrics
from router.needs import Need
from router.timekeeping import Timekeeper


class Tools(Struct, frozen=True):
    """What the factory hands each backend, in addition to the configuration."""

    clock: Clock
    timekeeper: Timekeeper
    chance: random.Random
    metrics: Metrics
    in_line: bool = False
    """Run blocking calls inline, and start no thread."""


class Upkeep(Struct, frozen=True):
    """Background work of a backend, which a service runs for as long as it runs itself."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    limited: Callable[[], str]
    """What the backend refuses at the moment, and why; empty if nothing."""


class Backend(ABC):
    """One kind of store, as configured. Creating the object connects to nothing.

    Opened as an asynchronous context manager, it hands out the components of its roles. Opening raises ``ConfigError``
    and ``Unavailable``. All other methods work on one that is not open, too.
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
        """The roles that it keeps by this configuration."""

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
        """Open what the components use. ``stack`` closes it, even if opening fails half-way."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of this kind in the configuration."""

    @property
    def local(self) -> bool:
        """Whether the store is on this machine: then it has this machine's clock, and all services run here."""
        return False

    @property
    @abstractmethod
    def fix(self) -> str:
        """What an operator does when it does not answer."""

    @abstractmethod
    def address(self, role: Role) -> str:
        """Where it keeps ``role``, for people to read: from the configuration only, and without passwords."""

    def check_machine(self, *, trial: bool) -> None:  # noqa: B027 - most need nothing of it
        """Raise ``DataDirError`` if this machine cannot hold it; ``trial``: make its folder to find out."""

    def is_made(self) -> bool:
        """Whether there is anything that this user could try."""
        return True

    def check_made(self) -> None:  # noqa: B027 - most cannot be looked at from here
        """Raise ``DataDirError`` if no router has run yet, for commands that only look."""

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        """What ``router setup`` makes, in order; usable within the block."""
        yield []

    def settings(self) -> Iterator[Finding]:
        """For ``router doctor``: findings from the configuration alone."""
        yield from ()

    def checks(self) -> list[Check]:
        """For ``router doctor``: checks of the store itself. The roles are tried through the seams, elsewhere."""
        return []

    def untraceable(self) -> Mapping[Role, str]:
        """The roles in which it cannot look for one message, and why."""
        return {}

    def beyond_reach(self) -> list[str]:
        """What it may keep of a user that it cannot find and delete, in words, and until when."""
        return []

    def upkeep(self) -> list[Upkeep]:
        """The background work that each service runs which has opened this backend."""
        return []


class IngressBackend(Backend):
    """Keeps accepted messages, and dead letters."""

    redelivery_seconds = 0.0
    """After how long it delivers again what a consumer holds that died."""

    @abstractmethod
    def producer(self) -> IngressProducer: ...

    def routing_ingress(self) -> RoutingIngress | None:
        """The write end that routes what it takes, if this backend keeps all that a message passes."""
        return None

    def auditor(self) -> Auditor | None:
        """Reads the books of all mail, if this backend keeps all that a message passes."""
        return None

    @abstractmethod
    def consumer(self) -> AbstractAsyncContextManager[IngressConsumer]: ...

    @abstractmethod
    def dead_letters(self) -> DeadLetters: ...

    @abstractmethod
    def dead_letter_queue(self) -> DeadLetterQueue: ...

    @abstractmethod
    def letters_elsewhere(self) -> str:
        """Where the dead letters are if this backend can only lease them; empty if it can count them."""

    async def withdraw(self, user: str) -> int:
        """Delete the messages for ``user`` that wait to be routed; returns how many. See ``beyond_reach``."""
        del user
        return 0

    def dead_letter_box(self) -> DeadLetterBox:
        """The dead letters, to look at; raises ``ConfigError`` if this backend can only lease them."""
        raise ConfigError(self.letters_elsewhere())


class Auditor(Protocol):
    """Reads the books of all mail."""

    async def books(self) -> tuple[Books, list[Unbalanced]]:
        """The books of one moment, and each recipient of whom the queues do not hold what the books say."""
        ...


class DeadLetterBox(DeadLetterQueue, Protocol):
    """Dead letters that can be listed and counted without being taken."""

    async def count(self) -> int: ...

    async def list(self, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """The letters behind number ``after``, in order, each with its number."""
        ...


class OnlineBackend(Backend):
    """Keeps presence and the hot queue."""

    @property
    def forgets_at_once(self) -> bool:
        """Whether an id without an Idempotency-Key is forgotten with its acknowledgement."""
        return False

    @abstractmethod
    def online_store(self, pokes: PokeBus) -> OnlineStore:
        """The online store. It sends its pokes over ``pokes``, of the backend that ``online.poked_by`` names."""

    def trace_contexts(self) -> TraceContexts | None:
        """What remembers the traces of messages; ``None`` if they are stored with the messages."""
        return None


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
    async def outbox(self, subscription: str = "") -> Outbox:
        """The push commands, to look at or to take; ``subscription``: where they wait, if they do not wait here.

        Raises ``ConfigError`` if they cannot be looked at.
        """

    async def withdraw_commands(self, user: str) -> int:
        """Delete the push commands for ``user`` that wait; returns how many. See ``beyond_reach``."""
        del user
        return 0


class FileBackend(Backend):
    """Keeps all its data in one file of this machine."""

    @abstractmethod
    def back_up(self, file: Path, progress: Progress) -> Backup:
        """Write a checked copy (0600) of the data to ``file``, beside running services.

        Raises ``DataDirError``, ``Unavailable`` and ``OSError``, and then leaves ``file`` as it was.
        """

    @abstractmethod
    def check_backup(self, file: Path, progress: Progress) -> Backup:
        """Read all of the backup ``file``; raises ``InvalidInput`` unless it can be restored, and ``OSError``."""

    @abstractmethod
    def restore(self, file: Path, progress: Progress, *, overwrite: bool) -> Backup:
        """Put the backup ``file`` in the place of the data; a crash leaves the one or the other.

        Raises ``InvalidInput`` like ``check_backup``, and ``DataDirError`` if a process uses the data, or if there are
        any and not ``overwrite``.
        """


class TracingBackend(Backend):
    """Can be asked for one message, in whatever role it keeps."""

    finds_by_id = True
    """Whether it finds a message by its id alone, without its recipient."""

    @abstractmethod
    def message_traces(self) -> MessageTraces: ...


class OutboxEntry(Struct, frozen=True):
    """One push command that was not taken yet."""

    number: int
    """Rises with each command of this outbox; identifies it for ``Outbox.remove``."""
    id: str
    recipient: str
    command: bytes
    at: int
    """µs since 1970."""


class Outbox(Protocol):
    """The read end of push commands that wait for a notification service."""

    async def remove(self, numbers: Sequence[int]) -> None:
        """Remove these, which the notification service has taken."""
        ...

    async def list(self, after: int, limit: int) -> list[OutboxEntry]:
        """The commands behind number ``after``, in order."""
        ...

"""The registry of backends: a line for each kind that the configuration knows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from msgspec import Struct

from router.backends.base import (
    Backend,
    ColdBackend,
    FileBackend,
    IngressBackend,
    OnlineBackend,
    PokesBackend,
    PushBackend,
    Tools,
)
from router.config import Config
from router.config.roles import Role, kinds
from router.errors import ConfigError


class Entry(Struct, frozen=True):
    """Where the class of a backend is. It is imported only if the configuration names it."""

    module: str
    name: str
    extra: str = ""
    """Which extra of ``pyproject.toml`` brings its libraries."""


BACKENDS: Mapping[str, Entry] = {
    "embedded": Entry("router.backends.embedded.backend", "EmbeddedBackend"),
    "redis": Entry("router.backends.redis.backend", "RedisBackend", extra="redis"),
    "firestore": Entry("router.backends.firestore.backend", "FirestoreBackend", extra="google"),
    "pubsub": Entry("router.backends.pubsub.backend", "PubSubBackend", extra="google"),
    "none": Entry("router.backends.none", "NoneBackend"),
}


class Backends:
    """The backends of one configuration. Each is made when it is first asked for, and opened by who needs it open.

    All methods raise ``ConfigError`` where a library is missing.
    """

    def __init__(self, config: Config, tools: Tools) -> None:
        self._config = config
        self._tools = tools
        self._kinds = kinds(config)
        self._made: dict[str, Backend] = {}

    # The kinds of each section are of the class that is named here: ``tests/repository/test_backends.py``.

    def ingress(self) -> IngressBackend:
        return cast(IngressBackend, self.keeping(Role.INGRESS))

    def online(self) -> OnlineBackend:
        return cast(OnlineBackend, self.keeping(Role.ONLINE))

    def pokes(self) -> PokesBackend:
        return cast(PokesBackend, self._find(self._config.online.poked_by))

    def cold(self) -> ColdBackend:
        return cast(ColdBackend, self.keeping(Role.COLD))

    def push(self) -> PushBackend:
        return cast(PushBackend, self.keeping(Role.PUSH))

    def keeping(self, role: Role) -> Backend:
        """The backend that keeps ``role``."""
        return self._find(self._kinds[role])

    def used(self) -> list[Backend]:
        """All that the configuration needs something of, in the order of the registry."""
        named = {*self._kinds.values(), self._config.online.poked_by}
        if self._config.uses_data_dir:
            named.add("embedded")
        return [self._find(kind) for kind in BACKENDS if kind in named]

    def database(self) -> FileBackend:
        """The embedded one, whatever it keeps."""
        return cast(FileBackend, self._find("embedded"))

    def _find(self, kind: str) -> Backend:
        if kind not in self._made:
            self._made[kind] = load(kind)(self._config, self._tools)
        return self._made[kind]


def load(kind: str) -> type[Backend]:
    """The class of this ``kind``; raises ``ConfigError`` where one of its libraries is missing."""
    entry = BACKENDS[kind]
    try:
        found: type[Backend] = getattr(import_module(entry.module), entry.name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'kind = "{kind}" needs {error.name}, which is missing: install the router with its extra {entry.extra!r}: '
            f"pip install '.[{entry.extra}]' in the folder of its source, or '….whl[{entry.extra}]' with its wheel"
        ) from error
    return found

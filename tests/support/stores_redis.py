"""``Stores`` with Redis as the online store, beside the embedded rest."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import SecretStr

from router.config import Config, Embedded, Limits, Online
from tests.support.stores import CAP, Durability, EmbeddedStores

PREFIX = "test-"
"""Begins all keys of all tests."""


class RedisStores(EmbeddedStores):
    """Keys under a prefix of their own."""

    def __init__(
        self,
        data_dir: Path,
        url: str,
        *,
        mode: Literal["single", "sentinel", "cluster"] = "single",
        timeout_seconds: float = 3,
    ) -> None:
        super().__init__(data_dir)
        self.url = url
        self.mode = mode
        self.prefix = f"{PREFIX}{uuid4().hex[:12]}"
        self._timeout_seconds = timeout_seconds

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        online = Online(
            kind="redis",
            url=SecretStr(self.url),
            mode=self.mode,
            key_prefix=self.prefix,
            timeout_seconds=self._timeout_seconds,
            durability=durability,
        )
        return Config(embedded=Embedded(data_dir=self._data_dir), limits=Limits(queue_messages=cap), online=online)

"""``Stores`` with Firestore in it; ingress, push commands and dead letters are embedded."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.backends.google.channels import FIRESTORE
from router.config import Cold, Config, Google, Online
from router.factory import Factory
from router.interfaces import PokeBus
from tests.support.backends import opened
from tests.support.stores import CAP, Durability, EmbeddedStores


def use_emulator(address: str, patch: pytest.MonkeyPatch) -> None:
    """Firestore is at ``address``, and pokes beside it go over the embedded bus."""

    async def poke_bus(factory: Factory) -> PokeBus:
        return (await opened(factory, EmbeddedBackend)).poke_bus()

    patch.setenv(FIRESTORE.emulator_variable, address)
    patch.setattr(Factory, "poke_bus", poke_bus)


class FirestoreColdStores(EmbeddedStores):
    """An embedded online store, and a cold queue in a project of the emulator that no other test sees."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.project = f"test-{uuid.uuid4().hex[:12]}"
        self.database = "(default)"

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        return self.with_firestore(super().config(cap=cap, durability=durability), cold=Cold(kind="firestore"))

    def with_firestore(self, config: Config, **sections: Cold | Online) -> Config:
        """``config`` with these sections, in the project of this test."""
        return config.model_copy(
            update={"google": Google(project=self.project, firestore_database=self.database), **sections}
        )


class FirestoreStores(FirestoreColdStores):
    """Presence, hot and cold mail in a project of the emulator."""

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        config = super().config(cap=cap, durability=durability)
        return self.with_firestore(config, online=Online(kind="firestore", durability=durability))

"""``router setup`` makes the indexes and TTL policies of Firestore, over an admin service that speaks its protocol."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.firestore_admin_v1 import types

from router.backends.firestore import backend, resources
from router.backends.firestore.admin import Admin
from router.backends.firestore.indexes import cold_fields, online_fields
from router.cli import setup
from router.config import Cold, Config, Embedded, Google, Ingress, Online
from router.errors import Forbidden
from router.needs import MISSING, NOT_IN_EMULATOR, THERE, Need
from tests.support.firestore_admin import ACTIVE, DATABASE, FirestoreAdmin, serving
from tests.support.repository import ROOT

pytestmark = pytest.mark.anyio
COLD = Config(cold=Cold(kind="firestore"), google=Google(project="p"))
ALL = Config(
    cold=Cold(kind="firestore"),
    online=Online(kind="firestore"),
    ingress=Ingress(kind="pubsub"),
    google=Google(project="p"),
)
MESSAGES = f"{DATABASE}/collectionGroups/cold-queue-messages"


@pytest.fixture
def service() -> FirestoreAdmin:
    return FirestoreAdmin()


@pytest.fixture
async def admin(anyio_backend: str, service: FirestoreAdmin) -> AsyncIterator[Admin]:
    async with serving(service) as channel:
        yield Admin(channel, DATABASE, random.Random(1))


async def made(needs: list[Need]) -> None:
    for need in needs:
        if await need.look() == MISSING:
            await need.make()


async def test_what_is_missing_is_made_once(admin: Admin, service: FirestoreAdmin) -> None:
    needs = resources.needs(admin, ALL)
    assert [(need.what, need.where.rpartition("collectionGroups/")[2]) for need in needs] == [
        ("indexes", "cold-queue-messages"),
        ("TTL policy", "cold-queue-messages/fields/expire_at"),
        ("indexes", "online-queue"),
        ("indexes", "online-queue-hot"),
        ("indexes", "online-queue-ids"),
        ("TTL policy", "online-queue-ids/fields/expire_at"),
    ]
    assert {await need.look() for need in needs} == {MISSING}
    await made(needs)
    assert {await need.look() for need in needs} == {THERE}
    wanted = [*cold_fields("cold-queue"), *online_fields("online-queue")]
    for group in {field.collection for field in wanted}:
        own = [field for field in wanted if field.collection == group]
        assert service.indexes(group) == {(field.name, scope) for field in own for scope in field.scopes}
        assert {name.rpartition("/")[2] for name in service.fields if f"/{group}/" in name} == {f.name for f in own}
    assert [name for name, field in service.fields.items() if field.ttl_config.state] == [
        f"{MESSAGES}/fields/expire_at",
        f"{DATABASE}/collectionGroups/online-queue-ids/fields/expire_at",
    ]
    updated = service.updated()
    assert len(updated) == len(set(updated)), "Firestore refuses a second change of a field before the first is done"
    await made(needs)
    assert service.updated() == [], "nothing was left to do"


async def test_only_the_collections_that_are_used_have_some(admin: Admin) -> None:
    assert [need.what for need in resources.needs(admin, COLD)] == ["indexes", "TTL policy"]


async def test_what_others_have_made_stays(admin: Admin, service: FirestoreAdmin) -> None:
    """Another application has an index that the router does not need, and lacks one that it needs."""
    name = f"{MESSAGES}/fields/by_age"
    descending = {"query_scope": 1, "fields": [{"field_path": "by_age", "order": 2}]}
    service.fields[name] = types.Field.pb()(name=name, index_config={"indexes": [descending]})
    more = f"{MESSAGES}/fields/envelope"
    service.fields[more] = types.Field.pb()(
        name=more, index_config={"indexes": [{"query_scope": 1, "fields": [{"field_path": "envelope", "order": 1}]}]}
    )
    (indexes, _) = resources.needs(admin, COLD)
    assert await indexes.look() == MISSING
    await indexes.make()
    found = [(index.query_scope, index.fields[0].order) for index in service.fields[name].index_config.indexes]
    assert found == [(1, 2), (1, 1), (2, 1)]
    assert "cold-queue-messages.envelope" not in service.updated()
    assert await indexes.look() == THERE


async def test_a_field_with_a_policy_alone_still_lacks_its_exemption(admin: Admin, service: FirestoreAdmin) -> None:
    """It inherits the indexes of the database, and its values rise with time: a hot range."""
    name = f"{MESSAGES}/fields/expire_at"
    service.fields[name] = types.Field.pb()(
        name=name, ttl_config={"state": ACTIVE}, index_config={"uses_ancestor_config": True}
    )
    (_, policy) = resources.needs(admin, COLD)
    assert await policy.look() == MISSING
    await policy.make()
    settings = service.fields[name]
    assert (settings.index_config.uses_ancestor_config, list(settings.index_config.indexes)) == (False, [])
    assert settings.ttl_config.state == ACTIVE
    assert await policy.look() == THERE


async def test_more_than_a_page_of_fields_is_seen(admin: Admin, service: FirestoreAdmin) -> None:
    needs = resources.needs(admin, COLD)
    await made(needs)
    service.page_size = 2
    assert {await need.look() for need in needs} == {THERE}


async def test_without_the_role_it_says_which_and_the_commands(admin: Admin, service: FirestoreAdmin) -> None:
    (indexes, _) = resources.needs(admin, COLD)
    service.refused["UpdateField"] = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(Forbidden, match=r"roles/datastore\.indexAdmin, or run the commands"):
        await indexes.make()
    service.refused["ListFields"] = grpc.StatusCode.PERMISSION_DENIED
    assert "roles/datastore.indexAdmin" in await indexes.look()
    service.refused["ListFields"] = grpc.StatusCode.NOT_FOUND
    assert "gcloud firestore databases create" in await indexes.look()


async def test_an_emulator_has_neither_and_nothing_is_asked() -> None:
    needs = resources.needs(None, COLD)
    assert {await need.look() for need in needs} == {NOT_IN_EMULATOR}
    for need in needs:
        await need.make()


def test_the_commands_do_the_same() -> None:
    """gcloud has no option for indexes over a collection group; for these it is a call of the service."""
    config = COLD.model_copy(update={"google": Google(project="p", firestore_database="mail")})
    (indexes, policy) = resources.needs(None, config)
    (exempted, command) = policy.commands
    group = "--collection-group=cold-queue-messages"
    assert command == f"gcloud firestore fields ttls update expire_at {group} --enable-ttl --database=mail --project=p"
    update = "gcloud firestore indexes fields update"
    assert exempted == f"{update} expire_at {group} --disable-indexes --database=mail --project=p"
    fields = [field.name for field in cold_fields("cold-queue") if field.name != "expire_at"]
    by_field = dict(zip(fields, indexes.commands, strict=True))
    assert by_field["place"] == f"{update} place {group} --index=order=ascending --database=mail --project=p"
    assert by_field["envelope"] == f"{update} envelope {group} --disable-indexes --database=mail --project=p"
    called = shlex.split(by_field["untold_at"])
    wanted = {"queryScope": "COLLECTION_GROUP", "fields": [{"fieldPath": "untold_at", "order": "ASCENDING"}]}
    assert json.loads(called[called.index("--data") + 1]) == {"indexConfig": {"indexes": [wanted]}}
    path = "projects/p/databases/mail/collectionGroups/cold-queue-messages/fields/untold_at"
    assert called[-1] == f"https://firestore.googleapis.com/v1/{path}?updateMask=indexConfig"
    assert called[called.index("--request") + 1] == "PATCH"


async def test_setup_makes_the_rest_and_says_what_it_may_not(
    admin: Admin, service: FirestoreAdmin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def own() -> AsyncIterator[Any]:
        yield admin._channel

    async def open_channel(*_: object) -> Any:
        return own()

    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(backend, "open_channel", open_channel)
    config = COLD.model_copy(update={"embedded": Embedded(data_dir=tmp_path / "data")})
    planned = {step.where: step.state for step in await setup._setup(config, dry_run=True)}
    assert planned[MESSAGES] == MISSING
    assert service.updated() == []
    service.refused["UpdateField"] = grpc.StatusCode.PERMISSION_DENIED
    states = {step.where: step.state for step in await setup._setup(config, dry_run=False)}
    assert "indexAdmin" in states[MESSAGES]
    assert states[str(tmp_path / "data")] == "made"
    service.refused.clear()
    again = {step.where: step.state for step in await setup._setup(config, dry_run=False)}
    assert again[MESSAGES] == again[f"{MESSAGES}/fields/expire_at"] == "made"


def test_the_file_and_setup_make_the_same() -> None:
    document = json.loads((ROOT / "examples" / "firestore" / "firestore.indexes.json").read_text())
    assert document["fieldOverrides"] == [field.override() for field in resources.wanted(ALL)]

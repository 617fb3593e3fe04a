"""What a Firestore database must be."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import grpc
import msgspec
import pytest
from google.cloud.firestore_admin_v1 import types

from router.backends.firestore import checks as firestore
from router.backends.firestore import facts
from router.backends.firestore.admin import Admin
from router.backends.firestore.facts import FirestoreFacts
from router.config import Cold, Config, Google, Ingress, Online
from router.errors import Unavailable
from router.findings import Finding, Severity
from router.needs import MISSING, THERE
from tests.support.firestore_admin import ACTIVE, DATABASE, FirestoreAdmin, serving

pytestmark = pytest.mark.anyio
GOOD = FirestoreFacts("FIRESTORE_NATIVE", "eur3", True, {"cold-queue-messages": "ACTIVE"})


@pytest.fixture
def service() -> FirestoreAdmin:
    return FirestoreAdmin()


@pytest.fixture
async def admin(anyio_backend: str, service: FirestoreAdmin) -> AsyncIterator[Admin]:
    async with serving(service) as channel:
        yield Admin(channel, DATABASE, random.Random(1))


async def test_the_admin_service_is_asked(admin: Admin, service: FirestoreAdmin) -> None:
    field = admin.field("cold-queue-messages", "expire_at")
    service.fields[field] = types.Field.pb()(name=field, ttl_config={"state": ACTIVE})
    assert await facts.gather(admin, ["cold-queue-messages"]) == GOOD
    assert service.asked == [("GetDatabase", DATABASE), ("GetField", field)]
    service.fields.clear()
    found = await facts.gather(admin, ["cold-queue-messages"])
    assert found.expiry == {"cold-queue-messages": "STATE_UNSPECIFIED"}


async def test_settings_that_may_not_be_seen_are_no_fault(
    admin: Admin, service: FirestoreAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.refused["GetDatabase"] = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(Unavailable) as problem:
        await facts.gather(admin, [])
    assert firestore._is_unseen(problem.value)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    (finding,) = [finding async for finding in firestore.look(Config(google=Google(project="p")), random.Random(1))]
    assert finding.severity is Severity.NOTE


def judged(**changes: object) -> dict[str, Finding]:
    found = msgspec.structs.replace(GOOD, **changes)
    return {finding.check: finding for finding in firestore.judge(found, Config(google=Google(project="p")))}


async def test_what_is_wrong_with_one() -> None:
    assert {finding.severity for finding in judged().values()} == {Severity.FINE}
    assert judged(mode="DATASTORE_MODE")["firestore.database"].severity is Severity.ERROR
    assert judged(protected=False)["firestore.protection"].severity is Severity.NOTE
    assert judged(expiry={"x": "CREATING"})["firestore.ttl"].severity is Severity.NOTE
    missing = judged(expiry={"x-messages": "STATE_UNSPECIFIED"})["firestore.ttl"]
    assert missing.severity is Severity.WARNING
    assert "ttls update expire_at --collection-group=x-messages --enable-ttl --project=p" in missing.fix


async def test_indexes_that_are_missing_are_told() -> None:
    assert firestore.judge_indexes("x-messages", THERE).severity is Severity.FINE
    missing = firestore.judge_indexes("x-messages", MISSING)
    assert (missing.severity, missing.fix) == (Severity.WARNING, "router setup")


async def test_which_collections_expire() -> None:
    cold, online = Cold(kind="firestore"), Online(kind="firestore")
    assert facts.expiring(Config(cold=cold)) == ["cold-queue-messages"]
    assert facts.expiring(Config(cold=cold, online=online, ingress=Ingress(kind="pubsub"))) == [
        "cold-queue-messages",
        "online-queue-ids",
    ]

"""What a Firestore database must be. Emulators have no admin service, so a small one speaks its protocol here."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import msgspec
import pytest
from google.cloud.firestore_admin_v1 import types

from router.backends.firestore import checks as firestore
from router.backends.firestore import facts
from router.backends.firestore.facts import FirestoreFacts
from router.config import Cold, Config, Google, Ingress, Online
from router.errors import Unavailable
from router.findings import Finding, Severity

pytestmark = pytest.mark.anyio
DATABASE = "projects/p/databases/(default)"
GOOD = FirestoreFacts("FIRESTORE_NATIVE", "eur3", True, {"cold-queue-messages": "ACTIVE"})


class Admin(grpc.GenericRpcHandler):
    """Answers for one database; ``expiry`` is the state of its TTL policy."""

    def __init__(self) -> None:
        self.expiry = types.Field.TtlConfig.State.ACTIVE
        self.refuses = False
        self.asked: list[str] = []

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        request: Any = types.GetDatabaseRequest if method == "GetDatabase" else types.GetFieldRequest
        return grpc.unary_unary_rpc_method_handler(
            self.database if method == "GetDatabase" else self.field,
            request_deserializer=request.pb().FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    async def database(self, request: Any, context: Any) -> Any:
        self.asked.append(request.name)
        if self.refuses:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return types.Database.pb()(name=request.name, type_=1, location_id="eur3", delete_protection_state=2)

    async def field(self, request: Any, context: Any) -> Any:
        self.asked.append(request.name)
        return types.Field.pb()(name=request.name, ttl_config={"state": int(self.expiry)})


@pytest.fixture
async def admin(anyio_backend: str) -> AsyncIterator[tuple[Admin, grpc.aio.Channel]]:
    admin, server = Admin(), grpc.aio.server()
    server.add_generic_rpc_handlers([admin])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield admin, channel
    await server.stop(None)


async def test_the_admin_service_is_asked(admin: tuple[Admin, grpc.aio.Channel]) -> None:
    service, channel = admin
    assert await facts.gather(channel, DATABASE, ["cold-queue-messages"], random.Random(1)) == GOOD
    assert service.asked == [DATABASE, f"{DATABASE}/collectionGroups/cold-queue-messages/fields/expire_at"]
    service.expiry = types.Field.TtlConfig.State.STATE_UNSPECIFIED
    found = await facts.gather(channel, DATABASE, ["cold-queue-messages"], random.Random(1))
    assert found.expiry == {"cold-queue-messages": "STATE_UNSPECIFIED"}


async def test_settings_that_may_not_be_seen_are_no_fault(
    admin: tuple[Admin, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, channel = admin
    service.refuses = True
    with pytest.raises(Unavailable) as problem:
        await facts.gather(channel, DATABASE, [], random.Random(1))
    assert firestore._is_unseen(problem.value)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    (finding,) = [finding async for finding in firestore.look(Config(google=Google(project="p")), random.Random(1))]
    assert finding.severity is Severity.NOTE


def judged(**changes: object) -> dict[str, Finding]:
    found = msgspec.structs.replace(GOOD, **changes)
    return {finding.check: finding for finding in firestore.judge(found, "p", "(default)")}


async def test_what_is_wrong_with_one() -> None:
    assert {finding.severity for finding in judged().values()} == {Severity.FINE}
    assert judged(mode="DATASTORE_MODE")["firestore.database"].severity is Severity.ERROR
    assert judged(protected=False)["firestore.protection"].severity is Severity.NOTE
    assert judged(expiry={"x": "CREATING"})["firestore.ttl"].severity is Severity.NOTE
    missing = judged(expiry={"x-messages": "STATE_UNSPECIFIED"})["firestore.ttl"]
    assert missing.severity is Severity.WARNING
    assert "ttls update expire_at --collection-group=x-messages --enable-ttl --project=p" in missing.fix


async def test_which_collections_expire() -> None:
    cold, online = Cold(kind="firestore"), Online(kind="firestore")
    assert facts.expiring(Config(cold=cold)) == ["cold-queue-messages"]
    assert facts.expiring(Config(cold=cold, online=online, ingress=Ingress(kind="pubsub"))) == [
        "cold-queue-messages",
        "online-queue-ids",
    ]

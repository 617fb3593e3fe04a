"""The production topology under traffic: two of each service as real processes, and all that can fail failing."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import pytest

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.wire import PubSubApi
from router.client import RouterClient
from router.config import Config, Google
from tests.support.balancer import balancing
from tests.support.identity import Identity, identity_service
from tests.support.production import SERVICES, Production, environment, production
from tests.support.servers import Server, redis_server, running
from tests.support.traffic import Inbox, Senders, judge

pytestmark = pytest.mark.anyio
ONLINE, OFFLINE, SENDERS = 6, 2, 4
STALL_SECONDS = 10.0
"""How long an emulator answers nothing: this is the fault itself, not a wait for something."""
SETTLE_SECONDS = 60.0
"""What has not arrived by then does not arrive."""
WHOLE_SECONDS = 300.0
SEND_BUDGET_SECONDS = 120.0


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis that may be killed."""
    with running(redis_server(tmp_path_factory.mktemp("redis"), "--maxmemory-policy", "noeviction")) as server:
        yield server


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    with identity_service(tmp_path_factory.mktemp("identity")) as identity:
        yield identity


@pytest.fixture(scope="module")
def topology(
    tmp_path_factory: pytest.TempPathFactory, own_redis: Server, firestore: Server, pubsub: Server, identity: Identity
) -> Iterator[Production]:
    project = f"production-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("nodes")
    settings = environment(folder, own_redis, firestore, pubsub, identity, project)
    with production(folder, settings) as topology, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)
        asyncio.run(subscribe(project))
        yield topology


@asynccontextmanager
async def notifications(project: str) -> AsyncIterator[tuple[PubSubApi, str]]:
    """Pub/Sub, and the subscription of a notification service."""
    async with await open_channel(PUBSUB, Config(google=Google(project=project))) as channel:
        api = PubSubApi(channel, project, random.Random(1))
        yield api, api.subscription("notifier")


async def subscribe(project: str) -> None:
    async with notifications(project) as (api, name):
        await api.create("create_subscription", name, name=name, topic=api.topic("push-notifications"))


async def announced(topology: Production, wanted: set[str]) -> None:
    """Return when a push command for each of ``wanted`` has come."""
    async with notifications(topology.environment["GOOGLE_CLOUD_PROJECT"]) as (api, name):
        while wanted:
            received = await api.pull(name, 1000, 5)
            wanted = wanted - {one.message.attributes["messageId"] for one in received}
            if received:
                await api.acknowledge(name, [one.ack_id for one in received])


class Scene:
    """People on both nodes, some online and some not, and senders who write to all of them."""

    def __init__(self, senders: Senders, online: list[Inbox], offline: list[Inbox]) -> None:
        self.senders = senders
        self.online = online
        self.offline = offline

    def missing(self) -> str:
        """What was accepted and is not in the inboxes, by recipient: how many, and the oldest."""
        lines = []
        for inbox in [*self.online, *self.offline]:
            wanted = [one for one in self.senders.sent if one.recipient == inbox.user]
            lost = [f"{one.sender[-1]}/{one.number} {one.id}" for one in wanted if one.id not in inbox.messages]
            if lost:
                lines.append(f"{inbox.user} lacks {len(lost)} of {len(wanted)}, first {lost[:4]}, last {lost[-1]}")
        return "\n".join(lines) or "nothing is missing"


@asynccontextmanager
async def traffic(topology: Production, identity: Identity) -> AsyncIterator[Scene]:
    """Traffic that runs while the block does; then all of it has to be there, and is judged."""
    async with (
        asyncio.timeout(WHOLE_SECONDS),
        balancing(topology.ports("serve-api")) as api,
        balancing(topology.ports("serve-ws")) as sockets,
        AsyncExitStack() as stack,
    ):
        url, ws_url = f"http://127.0.0.1:{api.port}", f"ws://127.0.0.1:{sockets.port}/connect"

        def client(user: str) -> RouterClient:
            token = identity.token(user)
            return RouterClient(url, lambda: token, ws_url=ws_url, budget_seconds=SEND_BUDGET_SECONDS)

        scene = _scene(client_of=client)
        people = await stack.enter_async_context(_Tasks())
        for inbox in scene.online:
            listener = await stack.enter_async_context(client(inbox.user))
            people.start(listener.listen(inbox.save))
        sending = people.start(scene.senders.run())
        await scene.senders.more(50)
        yield scene
        await scene.senders.more(100)
        scene.senders.stop()
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await sending
                for inbox in scene.online:
                    await inbox.holds(scene.senders.ids(inbox.user))
                for inbox in scene.offline:
                    async with client(inbox.user) as reader:
                        while not scene.senders.ids(inbox.user) <= inbox.messages.keys():
                            await reader.drain(inbox.save, 500)
                await announced(topology, {id_ for inbox in scene.offline for id_ in scene.senders.ids(inbox.user)})
        except TimeoutError:
            pytest.fail(f"{scene.missing()}; {await asyncio.to_thread(topology.cli, 'inspect-queue', '--json')}")
        judge(scene.senders.sent, [*scene.online, *scene.offline])


def _scene(client_of: Callable[[str], RouterClient]) -> Scene:
    run = secrets.token_hex(4)  # each test has people of its own
    online = [Inbox(f"urn:sm:user:{run}-on-{number}") for number in range(ONLINE)]
    offline = [Inbox(f"urn:sm:user:{run}-off-{number}") for number in range(OFFLINE)]
    names = [f"urn:sm:user:{run}-from-{number}" for number in range(SENDERS)]
    return Scene(Senders(client_of, names, [inbox.user for inbox in [*online, *offline]]), online, offline)


class _Tasks:
    """Tasks that end with the block; one that fails is told when it does."""

    async def __aenter__(self) -> Self:
        self._tasks: list[asyncio.Task[None]] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task


async def view(topology: Production) -> dict[str, Any]:
    """What there is, of all users."""
    seen: dict[str, Any] = json.loads(await asyncio.to_thread(topology.cli, "inspect-queue", "--json"))
    return seen


async def queued(topology: Production) -> int:
    """How many messages are left in hot and cold."""
    seen = await view(topology)
    return int(seen["hot"]["messages"] + seen["cold"]["messages"])


async def test_production_delivers_everything_and_keeps_nothing(topology: Production, identity: Identity) -> None:
    """The users are online, whichever node holds their sockets."""
    async with traffic(topology, identity) as scene:
        await scene.senders.more(300)
        assert (await view(topology))["online_users"] == ONLINE
    assert await queued(topology) == 0


@pytest.mark.parametrize("service", SERVICES)
async def test_one_of_each_is_killed(topology: Production, identity: Identity, service: str) -> None:
    """RACES 2, 3, 5, 15: whatever it had in hand is done by the others, once."""
    victim = topology.nodes[service][0]
    async with traffic(topology, identity) as scene:
        victim.kill()
        await scene.senders.more(200)
        victim.start()
        await asyncio.to_thread(victim.wait)
    assert await queued(topology) == 0


async def test_a_pipeline_dies_with_mail_in_its_hands(
    topology: Production, identity: Identity, firestore: Server
) -> None:
    """RACES 2: it has taken what cold does not answer for; another one gets all of it again, in order."""
    victim = topology.nodes["process"][0]
    async with traffic(topology, identity) as scene:
        firestore.freeze()
        try:
            await scene.senders.more(100)
            victim.kill()
        finally:
            firestore.thaw()
        victim.start()
        await asyncio.to_thread(victim.wait)
    assert await queued(topology) == 0


async def test_one_of_every_kind_is_killed_at_once(topology: Production, identity: Identity) -> None:
    victims = [nodes[1] for nodes in topology.nodes.values()]
    async with traffic(topology, identity) as scene:
        for victim in victims:
            victim.kill()
        await scene.senders.more(200)
        for victim in victims:
            victim.start()
        for victim in victims:
            await asyncio.to_thread(victim.wait)
    assert await queued(topology) == 0


async def test_redis_is_killed_and_comes_back(topology: Production, identity: Identity, own_redis: Server) -> None:
    """RACES 9, 10, 17: mail goes cold meanwhile; its log has the rest."""
    async with traffic(topology, identity) as scene:
        own_redis.stop()
        await scene.senders.more(100)
        await asyncio.to_thread(own_redis.start)
    assert await queued(topology) == 0


@pytest.mark.parametrize("which", ["firestore", "pubsub"])
async def test_an_emulator_stalls(
    topology: Production, identity: Identity, which: str, request: pytest.FixtureRequest
) -> None:
    """RACES 11."""
    server: Server = request.getfixturevalue(which)
    async with traffic(topology, identity):
        server.freeze()
        try:
            await asyncio.sleep(STALL_SECONDS)
        finally:
            server.thaw()
    assert await queued(topology) == 0


async def test_rolling_out_a_new_version(topology: Production, identity: Identity) -> None:
    """RACES 35: each node drains and comes back while the others work."""
    async with traffic(topology, identity) as scene:
        for nodes in topology.nodes.values():
            for node in nodes:
                assert await asyncio.to_thread(node.stop) == 0
                await scene.senders.more(20)
                node.start()
                await asyncio.to_thread(node.wait)
    assert await queued(topology) == 0

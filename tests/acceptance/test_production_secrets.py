"""After a soak of the production backends, two of each service, payloads are found inside envelopes only, and senders,
tokens and keys nowhere; with both online stores and both forms of push commands."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from tests.support.contents import OWNER, POKES, Topics, Value, firestore_values, redis_values
from tests.support.identity import Identity, identity_service
from tests.support.production import Production, environment, production
from tests.support.servers import Server, redis_server, running
from tests.support.soak import (
    PAYLOAD,
    PAYLOADS,
    RECIPIENTS,
    SENDER,
    SETTINGS,
    Soak,
    ask,
    be_refused,
    misuse_sockets,
    receive,
    sealed,
    send,
)

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0
"""What has not come by then does not come."""
INGRESS, PUSH, LETTERS = "ingress-topic", "push-notifications", "ingress-topic-dlq"
IN_REDIS = {"b hash"}
IN_FIRESTORE = {"cold-queue-messages envelope", "online-queue-hot envelope"}
ON_TOPICS = {"command": {f"{INGRESS} data", f"{LETTERS} data", f"{PUSH} data"}}
ON_TOPICS["notification-request"] = ON_TOPICS["command"] - {f"{PUSH} data"}
BROKEN = "urn:sm:user:broken"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """Everything that is ever written to it stays in its log."""
    with running(redis_server(tmp_path / "redis", "--auto-aof-rewrite-percentage", "0")) as server:
        yield server


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    with identity_service(tmp_path) as identity:
        yield identity


def settings(
    folder: Path, redis: Server, firestore: Server, pubsub: Server, identity: Identity, online: str, form: str
) -> dict[str, str]:
    project = f"secrets-{secrets.token_hex(4)}"
    more = {
        "ROUTER_ONLINE__KIND": online,
        "ROUTER_PUSH__FORMAT": form,
        "ROUTER_SERVER__LOG_FORMAT": "json" if online == "redis" else "text",
    }
    return {**environment(folder, redis, firestore, pubsub, identity, project), **SETTINGS, **more}


class Scene:
    """The running topology, what it stores, and who makes use of it."""

    def __init__(
        self, topology: Production, redis: Server, firestore: Server, pubsub: Server, topics: Topics, soak: Soak
    ) -> None:
        self.topology = topology
        self.redis = redis
        self.firestore = firestore
        self.pubsub = pubsub
        self.topics = topics
        self.soak = soak
        self.project = topology.environment["GOOGLE_CLOUD_PROJECT"]

    @property
    def in_redis(self) -> bool:
        return self.topology.environment["ROUTER_ONLINE__KIND"] == "redis"

    def metrics(self) -> list[bytes]:
        return [httpx.get(f"http://127.0.0.1:{node.admin_port}/metrics").content for node in self.topology.all()]

    def count(self, *names: str, **labels: str) -> float:
        """The sum of these counters, or of those of their samples with ``labels``, over all processes."""
        families = [one for text in self.metrics() for one in text_string_to_metric_families(text.decode())]
        samples = [sample for family in families for sample in family.samples if sample.name in names]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def publish_raw(self, data: bytes) -> None:
        """As another system does."""
        body = {"messages": [{"data": base64.b64encode(data).decode()}]}
        url = f"http://{self.pubsub.address}/v1/projects/{self.project}/topics/{INGRESS}:publish"
        httpx.post(url, json=body, headers=OWNER).raise_for_status()

    def scan_stores(self, *, wanted: Collection[str]) -> None:
        """All that is stored and was published; ``wanted`` is where a payload must have been found."""
        form = self.topology.environment["ROUTER_PUSH__FORMAT"]
        places = self._scan(firestore_values(self.firestore, self.project), IN_FIRESTORE)
        places |= self._scan(redis_values(self.redis), IN_REDIS)
        places |= self._scan(self.topics.values(), ON_TOPICS[form])
        assert places >= set(wanted)

    def _scan(self, values: Iterable[Value], sealed_in: Collection[str]) -> set[str]:
        """The places in which something was; those of envelopes only where a payload was in one."""
        places = set()
        for place, text in values:
            if place not in sealed_in:
                self.soak.scan(_opened(text) if place == f"{PUSH} data" else text, place)
                places.add(place)
                continue
            assert not self.soak.found(text), place
            if any(payload in text for payload in PAYLOADS):
                places.add(place)
        return places

    def scan_redis_log(self) -> None:
        """Every write that Redis was ever told to make; commands with envelopes are among them."""
        files = [path for path in self.redis.folder.rglob("*.aof") if path.stat().st_size]
        assert bool(files) == self.in_redis
        for path in files:
            assert not self.soak.found(path.read_bytes()), path


def _opened(text: bytes) -> bytes:
    """A notification request, with what is in it in base64 beside it."""
    return text + base64.b64decode(json.loads(text)["Payload"])


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; it asks other processes."""
    async with asyncio.timeout(EVENT_SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - they set no event here
            await asyncio.sleep(0.05)


def all_routed(scene: Scene) -> bool:
    """Nothing was delivered twice, since nothing has failed yet."""
    return scene.count("router_messages_routed_total") == scene.count("router_messages_accepted_total")


async def soak_once(scene: Scene, client: httpx.AsyncClient) -> None:
    """Everything that people do, right and wrong, while nothing fails."""
    soak = scene.soak
    await send(soak, client)
    await eventually(lambda: all_routed(scene))
    await be_refused(soak, client)
    await misuse_sockets(soak)
    await receive(soak, client)


async def fail(scene: Scene, client: httpx.AsyncClient) -> None:
    """Every dependency refuses, or is away; and what can be read by nobody is published."""
    soak = scene.soak
    scene.publish_raw(b'{"recipientId":"%b %b","%b"' % (PAYLOAD, PAYLOAD, PAYLOAD))
    await eventually(lambda: scene.count("router_dead_letters_total", reason="undecodable") > 0)
    if scene.in_redis:
        await _refused_by_redis(scene, client)
        scene.redis.stop()
    scene.firestore.freeze()
    try:
        assert await _send(soak, client, "failing", "offline-0") == 202
        assert await ask(client, "GET", "/api/messages", headers=soak.bearer("offline-0")) == 503
        await eventually(lambda: scene.count("router_dependency_failures_total") > 0)
    finally:
        scene.firestore.thaw()
    if scene.in_redis:
        await asyncio.to_thread(scene.redis.start)


async def _refused_by_redis(scene: Scene, client: httpx.AsyncClient) -> None:
    """A full Redis, and one user's keys that somebody else has written."""
    redis: Any = Redis(host="127.0.0.1", port=scene.redis.port)
    with redis:
        redis.config_set("maxmemory", 1)
        cold = scene.count("router_messages_routed_total", outcome="cold")
        assert await _send(scene.soak, client, "full", "online-0") == 202
        await eventually(lambda: scene.count("router_messages_routed_total", outcome="cold") > cold)
        redis.config_set("maxmemory", 0)
        redis.set(f"router:{{{BROKEN}}}:m", PAYLOAD)
        assert await _send(scene.soak, client, "broken", BROKEN) == 202
        await eventually(lambda: scene.count("router_dead_letters_total", reason="attempts-exhausted") > 0)
        redis.delete(f"router:{{{BROKEN}}}:m")


async def _send(soak: Soak, client: httpx.AsyncClient, sender: str, recipient: str) -> int:
    return await ask(client, "POST", "/api/send", content=sealed(recipient), headers=soak.bearer(f"{SENDER}-{sender}"))


def commands(scene: Scene) -> list[bytes]:
    """What people see who look after the router."""
    looks: list[tuple[str, ...]] = [("inspect-queue", user, "--json") for user in RECIPIENTS]
    looks += [("inspect-queue",), ("inspect-queue", "--json"), ("migrate", "--all", "--json"), ("config", "show")]
    return [scene.topology.cli(*look).encode() for look in looks]


@pytest.mark.parametrize(("online", "form"), [("redis", "command"), ("firestore", "notification-request")])
async def test_secrets_stay_secret(
    tmp_path: Path, own_redis: Server, firestore: Server, pubsub: Server, identity: Identity, online: str, form: str
) -> None:
    """RACES 40: at what is stored and published, logged, counted and printed."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    env = settings(folder, own_redis, firestore, pubsub, identity, online, form)
    with ExitStack() as stack:
        topology = stack.enter_context(production(folder, env))
        nodes = len(topology.ports("serve-ws")) if online == "firestore" else 0
        project = topology.environment["GOOGLE_CLOUD_PROJECT"]
        topics = stack.enter_context(closing(Topics(pubsub, project, nodes)))
        api, sockets = (topology.ports(service)[0] for service in ("serve-api", "serve-ws"))
        soak = Soak(f"http://127.0.0.1:{api}", f"ws://127.0.0.1:{sockets}/connect", identity.sign)
        scene = Scene(topology, own_redis, firestore, pubsub, topics, soak)
        async with soak.client() as client:
            async with soak.online():
                await soak_once(scene, client)
                hot = IN_REDIS if online == "redis" else {"online-queue-hot envelope", f"{POKES} data"}
                always = {"cold-queue-messages envelope", f"{LETTERS} data", f"{PUSH} attribute", f"{INGRESS} key"}
                scene.scan_stores(wanted={*hot, *always, *ON_TOPICS[form], f"{PUSH} data"})
            for said in await asyncio.to_thread(commands, scene):
                soak.scan(said, "what a command printed")
            await fail(scene, client)
        texts = scene.metrics()
        for node in topology.all():
            assert await asyncio.to_thread(node.stop) == 0
        scene.scan_stores(wanted=())
        scene.scan_redis_log()
        soak.scan_words([*texts, *(node.log() for node in topology.all())], b"undecodable", b"unavailable", b"ready")

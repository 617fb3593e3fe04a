"""The files in ``examples/deploy`` against the code: commands, settings, ports, probes, drains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from router.auth.opening import open_authenticator
from router.cli.app import COMMANDS, load
from router.clock import SystemClock
from router.config import Auth, Config, load_with_origins
from router.core.dependencies import ANSWER_SECONDS
from router.factory import Factory
from router.metrics import Metrics
from router.web.health import Health
from tests.support.servers import answers, free_port

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
ROOT = Path(__file__).parents[2]
CLOUD_RUN_GRACE_SECONDS = 10
CUT_OFF_SECONDS = 3
"""What a stopping process may take after ``server.drain_seconds``."""
ALLOWED_HEALTH = {route.path for route in Health(Metrics(), SystemClock()).public_routes()}
SECRETS = {
    "ROUTER_ONLINE__URL": "rediss://router:secret@redis.example.com:6379",
    "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcdef0123456789abcdef",
}
Yaml = dict[str, Any]


def documents(name: str) -> list[Yaml]:
    return [found for found in yaml.safe_load_all((DEPLOY / name).read_text()) if found is not None]


COMPOSE = documents("compose.yaml")[0]["services"]
MANIFESTS = {
    str(path.relative_to(DEPLOY)): documents(str(path.relative_to(DEPLOY)))
    for folder in ("kubernetes", "cloud-run")
    for path in sorted((DEPLOY / folder).glob("*.yaml"))
}
CONFIG_MAPS = {
    found["metadata"]["name"]: found["data"] for found in MANIFESTS["kubernetes/config.yaml"] if "data" in found
}


class Container:
    """One place where ``router`` is started."""

    def __init__(self, where: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.where = where
        self.arguments = arguments
        self.environment = dict(environment)
        self.config = load_with_origins(None, self.environment).config


def compose_containers() -> Iterator[Container]:
    for name, service in COMPOSE.items():
        if service["image"] == "sealed-router" and "entrypoint" not in service:
            yield Container(name, service["command"], service["environment"])


def pods() -> Iterator[tuple[str, Yaml]]:
    """The spec of each pod, with the name of what it belongs to."""
    for name, found in MANIFESTS.items():
        for document in found:
            spec = document.get("spec", {})
            while "template" in spec:
                spec = spec["template"]["spec"]
            if "containers" in spec:
                yield f"{name} {document['kind']}", spec


def environment(container: Yaml) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= CONFIG_MAPS[source["configMapRef"]["name"]]
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            assert set(variable["valueFrom"]) == {"secretKeyRef"}
            found[variable["name"]] = SECRETS[variable["name"]]
    return found


def pod_containers() -> Iterator[Container]:
    for name, spec in pods():
        (container,) = spec["containers"]
        yield Container(name, container["args"], environment(container))


CONTAINERS = [*compose_containers(), *pod_containers()]
everywhere = pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.where)


def test_nothing_is_left_out() -> None:
    started = [container.arguments[0] for container in CONTAINERS]
    for service in ("serve-api", "serve-ws", "process"):
        assert started.count(service) == 4, "twice in Compose, once on Kubernetes, once on Cloud Run"
    assert started.count("setup") == 3


@everywhere
def test_every_command_line_is_one(container: Container) -> None:
    name, *rest = container.arguments
    (entry,) = [entry for entry in COMMANDS if entry.name == name]
    load(entry).make_context(name, rest)


@everywhere
def test_every_setting_is_one_and_means_production(container: Container) -> None:
    config = container.config
    assert (config.ingress.kind, config.online.kind, config.cold.kind) == ("pubsub", "redis", "firestore")
    assert config.auth.kind == "jwks"
    assert config.ingress.idempotency_secret is not None
    assert config.auth.audience


def test_secrets_are_named_and_not_shown() -> None:
    for found in CONFIG_MAPS.values():
        assert not set(SECRETS) & set(found)
    for _, spec in pods():
        (container,) = spec["containers"]
        assert {variable["name"] for variable in container["env"] if "valueFrom" in variable} == set(SECRETS)


def test_kubernetes_probes_ports_and_drains_fit() -> None:
    seen = 0
    for name, spec in pods():
        if "Deployment" not in name:
            continue
        seen += 1
        (container,) = spec["containers"]
        own = environment(container)
        (port,) = container["ports"]
        assert int(own["PORT"]) == port["containerPort"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[kind]["httpGet"]["path"] in ALLOWED_HEALTH
            assert container[kind]["httpGet"]["port"] == port["name"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "an outage restarts nothing"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["readinessProbe"]["timeoutSeconds"] > ANSWER_SECONDS
        pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
        drain = load_with_origins(None, own).config.server.drain_seconds
        assert spec["terminationGracePeriodSeconds"] > drain + pause + CUT_OFF_SECONDS
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert set(container["resources"]) == {"requests", "limits"}
    assert seen == 3


def test_kubernetes_names_fit() -> None:
    everything = [document for name, found in MANIFESTS.items() if name.startswith("kubernetes") for document in found]
    accounts = {document["metadata"]["name"] for document in everything if document["kind"] == "ServiceAccount"}
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in everything
        if document["kind"] == "Deployment"
    }
    for document in everything:
        spec = document.get("spec", {})
        if document["kind"] in ("Service", "PodDisruptionBudget"):
            selector = spec["selector"] if document["kind"] == "Service" else spec["selector"]["matchLabels"]
            assert selector.items() <= labels[document["metadata"]["name"]].items()
        if document["kind"] == "Deployment":
            assert spec["selector"]["matchLabels"].items() <= labels[document["metadata"]["name"]].items()
    assert {spec["serviceAccountName"] for name, spec in pods() if name.startswith("kubernetes")} == accounts


def test_cloud_run_probes_ports_and_drains_fit() -> None:
    seen = 0
    for name, spec in pods():
        if not name.startswith("cloud-run") or name.endswith("Job"):
            continue
        seen += 1
        (container,) = spec["containers"]
        own = environment(container)
        assert "PORT" not in own, "Cloud Run sets it to the containerPort"
        (port,) = container["ports"]
        for kind in ("startupProbe", "livenessProbe"):
            assert container[kind]["httpGet"] == {"path": "/healthz", "port": port["containerPort"]}
        drain = load_with_origins(None, own).config.server.drain_seconds
        assert drain + CUT_OFF_SECONDS < CLOUD_RUN_GRACE_SECONDS
    assert seen == 3


def test_compose_ports_and_drains_fit() -> None:
    published = []
    for container in compose_containers():
        service = COMPOSE[container.where]
        grace = float(service["stop_grace_period"].removesuffix("s"))
        assert grace > container.config.server.drain_seconds + CUT_OFF_SECONDS
        for mapping in service.get("ports", []):
            host, outside, inside = mapping.split(":")
            assert host == "127.0.0.1"
            assert inside == container.environment["PORT"]
            published.append(outside)
    assert sorted(published) == ["8082", "8083", "8084", "8182", "8183", "8184"]


def test_compose_starts_in_order_and_with_a_redis_that_keeps_its_mail() -> None:
    for service in COMPOSE.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert name in COMPOSE
            assert wanted["condition"] != "service_healthy" or "test" in COMPOSE[name]["healthcheck"]
    settings = dict(zip(COMPOSE["redis"]["command"][1::2], COMPOSE["redis"]["command"][2::2], strict=True))
    assert settings["--maxmemory-policy"] == "noeviction"
    assert settings["--appendonly"] == "yes"
    url = COMPOSE["api-1"]["environment"]["ROUTER_ONLINE__URL"]
    assert f":{settings['--requirepass']}@redis:6379" in url


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def test_the_image_is_built_from_what_there_is() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.removeprefix('./')}" in ignored
    installs = [
        command
        for word, rest in instructions()
        if word == "RUN"
        for command in rest.split("&&")
        if " install " in command
    ]
    assert [command for command in installs if "--require-hashes" not in command and "--no-deps" not in command] == []


def test_the_last_stage_is_small_and_not_root() -> None:
    everything = instructions()
    last = max(index for index, (word, _) in enumerate(everything) if word == "FROM")
    stage = everything[last:]
    assert [rest for word, rest in stage if word == "COPY"] == ["--from=build /opt/router /opt/router"]
    assert [word for word, rest in stage if word == "RUN" and re.search("pip|apt|install", rest)] == []
    assert [rest for word, rest in stage if word == "USER"] == ["10001"]
    assert dict(stage)["ENTRYPOINT"] == '["router"]'
    assert '["python", "-m", "router.web.alive"]' in dict(stage)["HEALTHCHECK"]


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The toy identity service, as a process: its address, and a token of bob's."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = {**os.environ, "IDENTITY_PORT": str(port), "IDENTITY_URL": url, "IDENTITY_KEY": str(tmp_path / "key.pem")}
    command = [sys.executable, str(DEPLOY / "identity.py")]
    token = subprocess.run([*command, "token", "bob"], env=own, capture_output=True, text=True, timeout=30, check=True)
    serving = subprocess.Popen([*command, "serve"], env=own, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not answers(port):
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.02)
        yield url, token.stdout.strip()
    finally:
        serving.kill()
        serving.wait()


@pytest.mark.anyio
async def test_the_toy_identity_service_signs_what_the_router_believes(toy: tuple[str, str]) -> None:
    url, token = toy
    config = Config(auth=Auth(identity_service_url=url, issuer=url, audience="router"))
    async with (
        Factory(config) as factory,
        open_authenticator(config, SystemClock(), factory.tasks, factory.chance) as authenticator,
    ):
        assert (await authenticator.authenticate(token)).user == "urn:sm:user:bob"


def test_the_toy_identity_service_ends_by_the_signal_that_compose_sends(tmp_path: Path) -> None:
    """As process 1 it hears only what Python has a handler for: SIGINT, and no SIGTERM."""
    port = free_port()
    own = {**os.environ, "IDENTITY_PORT": str(port), "IDENTITY_KEY": str(tmp_path / "key.pem")}
    command = [sys.executable, str(DEPLOY / "identity.py"), "serve"]
    with subprocess.Popen(command, env=own, stderr=subprocess.PIPE) as serving:
        try:
            deadline = time.monotonic() + 20
            while not answers(port):
                assert time.monotonic() < deadline, "it did not start"
                time.sleep(0.02)
            serving.send_signal(signal.Signals[COMPOSE["identity"]["stop_signal"]])
            _, errors = serving.communicate(timeout=30)
        finally:
            serving.kill()
    assert (serving.returncode, b"Traceback" in errors) == (130, False)

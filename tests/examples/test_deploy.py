"""The files in ``examples/deploy`` against the code: commands, settings, ports, probes, drains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from router.auth.authenticator import open_authenticator
from router.cli.app import COMMANDS, load
from router.clock import SystemClock
from router.config import Auth, Config, load_with_origins, with_ports
from router.config.combinations import is_loopback, secretless
from router.core.dependencies import ANSWER_SECONDS
from router.core.readiness import Readiness
from router.factory import Factory
from router.metrics import Metrics
from router.web.health import Health
from tests.support.servers import answers, free_port

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
ROOT = Path(__file__).parents[2]
CLOUD_RUN_GRACE_SECONDS = 10
CUT_OFF_SECONDS = 3
"""What a stopping process may take after ``server.drain_seconds``."""
ALLOWED_HEALTH = {route.path for route in Health(Readiness(SystemClock()), Metrics()).public_routes()}
SECRETS = {
    "ROUTER_ONLINE__URL": "rediss://router:secret@redis.example.com:6379",
    "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcdef0123456789abcdef",
}
REDIS, IDEMPOTENCY = SECRETS
NEEDED = {
    "serve-api": {REDIS, IDEMPOTENCY},
    "serve-ws": {REDIS},
    "process": {REDIS},
    "setup": set[str](),
    "doctor": {REDIS, IDEMPOTENCY},
}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
Yaml = dict[str, Any]


def documents(name: str) -> list[Yaml]:
    return [found for found in yaml.safe_load_all((DEPLOY / name).read_text()) if found is not None]


COMPOSE = documents("compose.yaml")[0]["services"]
MANIFESTS = {
    str(path.relative_to(DEPLOY)): documents(str(path.relative_to(DEPLOY)))
    for folder in ("kubernetes", "cloud-run")
    for path in sorted((DEPLOY / folder).rglob("*.yaml"))
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

    @cached_property
    def config(self) -> Config:
        return load_with_origins(None, self.environment).config


def compose_containers() -> Iterator[Container]:
    for name, service in COMPOSE.items():
        if service["image"] == "sealed-router" and "entrypoint" not in service:
            yield Container(name, service["command"], service["environment"])


def pods() -> Iterator[tuple[str, Yaml]]:
    """The spec of each pod, with the name of what it belongs to."""
    for name, found in MANIFESTS.items():
        for document in found:
            spec = document.get("spec", {})
            while nested := spec.get("template") or spec.get("jobTemplate"):
                spec = nested["spec"]
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


def test_deployments_start_every_service() -> None:
    started = [container.arguments[0] for container in CONTAINERS]
    for service in ("serve-api", "serve-ws", "process"):
        assert started.count(service) == 4, "twice in Compose, once on Kubernetes, once on Cloud Run"
    assert started.count("setup") == started.count("doctor") == 3


@everywhere
def test_every_command_line_is_one(container: Container) -> None:
    name, *rest = container.arguments
    (entry,) = [entry for entry in COMMANDS if entry.name == name]
    load(entry).make_context(name, rest)


def test_every_command_of_the_page_is_one() -> None:
    page = (DEPLOY / "README.md").read_text()
    told = [line.split() for line in re.findall(r"-- router ([^|&\n]+)", page)]
    told += [arguments.split(",") for arguments in re.findall(r"--args=(\S+)", page)]
    assert len(told) >= 4
    for name, *rest in told:
        (entry,) = [entry for entry in COMMANDS if entry.name == name]
        load(entry).make_context(name, rest)


@everywhere
def test_every_setting_is_one_and_means_production(container: Container) -> None:
    config = container.config
    assert (config.ingress.kind, config.online.kind, config.cold.kind) == ("pubsub", "redis", "firestore")
    assert config.auth.kind == "jwks"
    assert config.auth.audience


@everywhere
def test_a_service_has_the_secrets_that_it_needs_and_no_other(container: Container) -> None:
    makes_ids = container.arguments[0] in ("serve-api", "doctor")
    assert (container.config.ingress.idempotency_secret is not None) == makes_ids
    assert not makes_ids or not secretless(container.config)


def test_secrets_are_named_and_not_shown() -> None:
    for found in CONFIG_MAPS.values():
        assert not set(SECRETS) & set(found)
    for _, spec in pods():
        (container,) = spec["containers"]
        secret = {variable["name"] for variable in container["env"] if "valueFrom" in variable}
        assert secret == NEEDED[container["args"][0]]
        shown = [
            variable["value"] for variable in container["env"] if variable["name"] in SECRETS and "value" in variable
        ]
        assert [url for url in shown if "@" in url] == [], "a password"


def test_kubernetes_probes_ports_and_drains_fit() -> None:
    seen = 0
    for name, spec in pods():
        if "Deployment" not in name:
            continue
        seen += 1
        (container,) = spec["containers"]
        own = environment(container)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        config = with_ports(load_with_origins(None, own).config, container["args"][0], own)
        assert ports == {"http": int(own["PORT"]), "admin": config.server.admin_port}
        assert not is_loopback(config.server.admin_host), "monitoring is another pod"
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[kind]["httpGet"]["path"] in ALLOWED_HEALTH
            assert container[kind]["httpGet"]["port"] == "http", "what clients see"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "an outage restarts nothing"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["readinessProbe"]["timeoutSeconds"] > ANSWER_SECONDS
        pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert spec["terminationGracePeriodSeconds"] > config.server.drain_seconds + pause + CUT_OFF_SECONDS
        assert set(container["resources"]) == {"requests", "limits"}
    assert seen == 3


def test_metrics_are_scraped_at_the_admin_port() -> None:
    seen = 0
    for name, found in MANIFESTS.items():
        for document in found:
            if name.startswith("kubernetes") and document["kind"] == "Deployment":
                template = document["spec"]["template"]
                (container,) = template["spec"]["containers"]
                ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
                assert template["metadata"]["annotations"]["prometheus.io/port"] == ports["admin"]
                seen += 1
            if document["kind"] == "Service" and name.startswith("kubernetes"):
                assert [port["targetPort"] for port in document["spec"]["ports"]] == ["http"], "no client comes by it"
    assert seen == 3


def test_pods_may_do_nothing_that_they_need_not() -> None:
    for name, spec in pods():
        if not name.startswith("kubernetes"):
            continue
        (container,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for found in MANIFESTS.values():
        for document in found:
            if document["kind"] == "ServiceAccount":
                assert document["automountServiceAccountToken"] is False
    for container in compose_containers():
        service = COMPOSE[container.where]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def policies() -> dict[str, Yaml]:
    return {document["metadata"]["name"]: document["spec"] for document in MANIFESTS["kubernetes/network.yaml"]}


def selected(spec: Yaml) -> set[str]:
    """The names of the apps that a policy is for."""
    labels = {
        pod["metadata"]["labels"]["app"]: pod["metadata"]["labels"]
        for name, found in MANIFESTS.items()
        for document in found
        if name.startswith("kubernetes")
        and (pod := document.get("spec", {}).get("jobTemplate", document).get("spec", {}).get("template"))
    }
    selector = spec["podSelector"]
    found = {app for app, own in labels.items() if selector.get("matchLabels", {}).items() <= own.items()}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        assert set(expression["values"]) <= set(labels), "a policy for nobody"
        found &= {app for app, own in labels.items() if own[expression["key"]] in expression["values"]}
    return found


def test_what_no_policy_names_is_closed() -> None:
    closed = policies()["router-closed"]
    assert selected(closed) == {"router-api", "router-ws", "router-process", "router-setup", "router-doctor"}
    assert (closed["policyTypes"], closed.keys() & {"ingress", "egress"}) == (["Ingress", "Egress"], set())
    for name, spec in policies().items():
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                assert rule[peers], f"{name} is for everybody"
                assert rule["ports"], f"{name} is for all ports"


def test_the_admin_port_is_for_monitoring_alone() -> None:
    opened = [
        (name, rule, port["port"])
        for name, spec in policies().items()
        for rule in spec.get("ingress", [])
        for port in rule["ports"]
    ]
    ((name, rule, _),) = [found for found in opened if found[2] != "http"]
    assert name == "router-monitoring"
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    clients = policies()["router-clients"]
    assert selected(clients) == {"router-api", "router-ws"}, "nobody calls the pipeline"


def test_a_base_image_is_what_its_digest_says() -> None:
    bases = [rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "what is built is what runs"
    assert DIGEST.search(bases[0])
    foreign = {service["image"] for service in COMPOSE.values() if "build" not in service}
    assert {image for image in foreign if not DIGEST.search(image)} == {COMPOSE["pubsub"]["image"]}, "but an emulator"


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


API_VERSIONS = {
    "ConfigMap": "v1", "ServiceAccount": "v1", "Service": "v1", "Deployment": "apps/v1", "Job": "batch/v1",
    "CronJob": "batch/v1", "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
}  # fmt: skip
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def kubernetes(folder: str = "kubernetes/") -> Iterator[tuple[str, Yaml]]:
    """(file, document) of all manifests for Kubernetes in and below ``folder``."""
    for name, found in MANIFESTS.items():
        for document in found:
            if name.startswith(folder):
                yield name, document


def test_what_is_applied_has_a_kind_and_a_name_of_its_own() -> None:
    """``kubectl apply`` reads the files of the folder itself, and none below it."""
    seen = set()
    for name, document in kubernetes():
        assert document["apiVersion"] == API_VERSIONS[document["kind"]], name
        if name.count("/") == 1:
            own = document["metadata"]["name"]
            assert NAME.fullmatch(own)
            assert (document["kind"], own) not in seen
            seen.add((document["kind"], own))
            assert document["kind"] != "Job", "a Job cannot be applied again with another image"


def test_the_setup_job_can_be_created_again_and_again() -> None:
    ((_, job),) = list(kubernetes("kubernetes/jobs/"))
    assert "name" not in job["metadata"], "each run has a name of its own"
    assert NAME.fullmatch(job["metadata"]["generateName"] + "x7k2p")
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    words = (DEPLOY / "README.md").read_text()
    assert "kubectl create --filename examples/deploy/kubernetes/jobs/setup.yaml" in words
    assert not re.search(r"kubectl apply[^\n]*(setup|jobs)", words)


def test_an_ingress_passes_what_clients_need_and_nothing_else() -> None:
    services = {document["metadata"]["name"]: document for _, document in kubernetes() if document["kind"] == "Service"}
    ((_, ingress),) = [found for found in kubernetes() if found[1]["kind"] == "Ingress"]
    assert "defaultBackend" not in ingress["spec"], "it would get /metrics and the like"
    (rule,) = ingress["spec"]["rules"]
    routes = {}
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        (port,) = services[backend["name"]]["spec"]["ports"]
        assert backend["port"] == {"name": port["name"]}
        assert port["targetPort"] == "http", "not the admin port"
        routes[path["path"], path["pathType"]] = backend["name"]
    assert routes == {("/api/", "Prefix"): "router-api", ("/connect", "Exact"): "router-ws"}
    assert [host for entry in ingress["spec"]["tls"] for host in entry["hosts"]] == [rule["host"]]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "5m"
    silence = int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"])
    assert silence > Config().server.ping_seconds


def test_a_url_map_passes_what_clients_need_and_nothing_else() -> None:
    (found,) = documents("proxies/url-map.yaml")
    (matcher,) = found["pathMatchers"]
    routes = {path: rule["service"].rpartition("/")[2] for rule in matcher["pathRules"] for path in rule["paths"]}
    assert routes == {"/api/*": "router-api", "/connect": "router-ws"}
    for place in (found, matcher):
        assert "defaultService" not in place
        assert "defaultUrlRedirect" in place


def test_google_lets_clients_through_to_what_is_theirs_and_nobody_to_the_pipeline() -> None:
    """Clients have no identity of Google's: a service that checks for one answers 403, whatever their token is."""
    public, closed = "run.googleapis.com/invoker-iam-disabled", "run.googleapis.com/ingress"
    annotations = {
        document["metadata"]["name"]: document["metadata"]["annotations"]
        for name, found in MANIFESTS.items()
        for document in found
        if name.startswith("cloud-run") and document["kind"] == "Service"
    }
    assert {name for name, own in annotations.items() if own.get(public) == "true"} == {"router-api", "router-ws"}
    assert annotations["router-process"][closed] == "internal"


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
        assert is_loopback(load_with_origins(None, own).config.server.admin_host), "no network keeps others from it"
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
            config = with_ports(container.config, service["command"][0], container.environment)
            assert int(inside) in (int(container.environment["PORT"]), config.server.admin_port)
            published.append(outside)
    assert sorted(published) == [f"8{first}8{unit}" for first in "01" for unit in "23456"]


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
    assert '["python", "-m", "router.healthcheck"]' in dict(stage)["HEALTHCHECK"]


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

"""``router setup`` over Pub/Sub, and what the services say without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from router.cli.exits import Code
from tests.cli.conftest import Router, environment

Run = Callable[..., subprocess.CompletedProcess[str]]


def states(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {step["where"]: step["state"] for step in json.loads(ended.stdout) if step["where"].startswith("projects/")}


def test_topics_and_subscriptions_are_made_once(router: Router, settings: dict[str, str], project: str) -> None:
    planned = router("setup", "--dry-run", "--json", **settings)
    names = {
        f"projects/{project}/{name}"
        for name in (
            "topics/ingress-topic",
            "topics/ingress-topic-dlq",
            "topics/push-notifications",
            "subscriptions/ingress-sub",
            "subscriptions/ingress-topic-dlq-sub",
        )
    }
    assert states(planned) == dict.fromkeys(names, "missing")
    assert states(router("setup", "--dry-run", "--json", **settings)) == dict.fromkeys(names, "missing"), "only said"
    assert states(router("setup", "--json", **settings)) == dict.fromkeys(names, "made")
    assert states(router("setup", "--json", **settings)) == dict.fromkeys(names, "there")


def test_the_same_by_hand_is_printed(router: Router, settings: dict[str, str], project: str) -> None:
    printed = router("setup", "--dry-run", **settings).stdout
    assert f"gcloud pubsub topics create ingress-topic --project={project}" in printed
    (command,) = [line for line in printed.splitlines() if "subscriptions create ingress-sub" in line]
    assert set(command.split()) >= {
        "--topic=ingress-topic",
        "--enable-message-ordering",
        "--expiration-period=never",
        "--ack-deadline=10",
        "--dead-letter-topic=ingress-topic-dlq",
        "--max-delivery-attempts=100",
    }
    assert "add-iam-policy-binding ingress-topic-dlq" in printed


def test_services_say_what_is_missing_and_make_nothing(router: Router, settings: dict[str, str]) -> None:
    for service in ("serve-api", "process"):
        ended = router(service, **settings)
        assert ended.returncode == Code.CONFIG, ended.stderr
        assert "topics/ingress-topic" in ended.stderr
        assert "router setup" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert set(states(router("setup", "--dry-run", "--json", **settings)).values()) == {"missing"}


def test_pubsub_needs_a_shared_idempotency_secret(router: Router, settings: dict[str, str]) -> None:
    """Where ids are made of keys: the others have no use for it, and are not to have it."""
    del settings["ROUTER_INGRESS__IDEMPOTENCY_SECRET"]
    for command in (["config", "check"], ["serve-api"], ["serve"]):
        ended = router(*command, **settings)
        assert ended.returncode == Code.CONFIG
        assert "ingress.idempotency_secret" in ended.stderr + ended.stdout
        assert "the same 32 or more random characters on all of them" in ended.stderr + ended.stdout
    for service in ("process", "serve-ws"):
        ended = router(service, ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL="redis://127.0.0.1:1", **settings)
        assert "idempotency_secret" not in ended.stderr


def test_envelopes_must_fit_into_a_message(router: Router, settings: dict[str, str]) -> None:
    ended = router("config", "check", **settings, ROUTER_LIMITS__ENVELOPE_BYTES="8000000")
    assert ended.returncode == Code.CONFIG
    assert "limits.envelope_bytes" in ended.stderr + ended.stdout


def test_an_emulator_that_is_away_is_no_traceback(router: Router, settings: dict[str, str], data_dir: Path) -> None:
    settings["PUBSUB_EMULATOR_HOST"] = "127.0.0.1:1"
    ended = router("setup", **settings)
    assert ended.returncode == Code.UNAVAILABLE
    assert "Pub/Sub" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not data_dir.exists(), "what cannot be reached is refused before anything is made"


def test_pubsub_brings_no_other_vendor(data_dir: Path, settings: dict[str, str]) -> None:
    code = (
        "import sys, router.backends.pubsub.backend\n"
        "print([name for name in ('google.cloud.firestore', 'google.cloud.firestore_v1', 'google.cloud.pubsub_v1', "
        "'redis', 'router.backends.firestore', 'router.backends.redis') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(data_dir), capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"

"""``router setup`` beside Firestore's emulator, which has no admin service."""

from __future__ import annotations

import json

from router.backends.firestore.indexes import cold_fields
from tests.cli.conftest import Router

SETTINGS = {
    "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",  # nothing is asked of it
    "GOOGLE_CLOUD_PROJECT": "my-project",
    "ROUTER_COLD__KIND": "firestore",
}


def test_it_says_what_is_missing_there_and_prints_the_commands(router: Router) -> None:
    done = router("setup", **SETTINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not in an emulator") == 2
    commands = [line for line in done.stdout.splitlines() if line.startswith(("gcloud firestore", "curl"))]
    assert len(commands) == len(cold_fields("cold-queue")) + 1
    assert all("my-project" in command for command in commands)
    steps = json.loads(router("setup", "--json", **SETTINGS).stdout)
    assert [step["state"] for step in steps if step["what"] in ("indexes", "TTL policy")] == 2 * ["not in an emulator"]


def test_commands_are_printed_for_what_is_left_alone(router: Router) -> None:
    router("setup", **SETTINGS)
    assert "Commands" not in router("setup", FIRESTORE_EMULATOR_HOST="127.0.0.1:1").stdout

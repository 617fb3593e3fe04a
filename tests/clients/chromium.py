"""Tests of ``clients/typescript`` that run in Chromium, and the router that they are given."""

from __future__ import annotations

import json
from pathlib import Path

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from tests.support.node import node, run
from tests.support.servers import chromium_program, free_port
from tests.support.service import Router

USERS = 20


def run_in_chromium(name: str, tmp_path: Path, *, seconds: float, **variables: str) -> None:
    """Run ``clients/typescript/tests/browser/NAME.test.ts``, for ``seconds`` at most. Raises ``MissingServer``."""
    program, port = chromium_program(), free_port()
    router = Router(tmp_path / "data", {"ROUTER_SERVER__ALLOWED_ORIGINS": json.dumps([f"http://127.0.0.1:{port}"])})
    key, now = EmbeddedKey.open(router.data_dir), SystemClock().now()
    tokens = {user: key.sign(user, now, seconds) for user in (f"urn:sm:user:{name}-{n}" for n in range(USERS))}
    given = {"ROUTER_URL": router.url, "ROUTER_TOKENS": json.dumps(tokens), "PAGE_PORT": str(port)}
    with router.running():
        run(node(), f"dist/tests/browser/{name}.test.js", seconds=seconds, CHROMIUM=str(program), **given, **variables)

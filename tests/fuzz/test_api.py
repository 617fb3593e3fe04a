"""schemathesis: requests made from the OpenAPI document, valid and not, against a real ``router serve``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.support.service import Router
from tests.support.tracebacks import traceback_in

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
REQUESTS = [
    ("POST", "/api/send", POSITIVE),
    ("POST", "/api/send", NEGATIVE),
    ("POST", "/api/send/batch", POSITIVE),
    ("POST", "/api/send/batch", NEGATIVE),
    ("GET", "/api/messages", POSITIVE),
    ("GET", "/api/messages", NEGATIVE),
    ("POST", "/api/messages/ack", POSITIVE),
    ("POST", "/api/messages/ack", NEGATIVE),
    ("POST", "/api/messages/next", POSITIVE),
    ("POST", "/api/messages/next", NEGATIVE),
    ("GET", "/connect", POSITIVE),
    ("GET", "/healthz", POSITIVE),
    ("GET", "/readyz", POSITIVE),
    ("GET", "/openapi.json", POSITIVE),
    ("GET", "/asyncapi.json", POSITIVE),
]
"""``NEGATIVE`` are those that break the document; without parameters there is nothing to break."""
EXAMPLES = 40
JUDGED = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "ignored_auth",
]
"""``negative_data_rejection`` is not among them: ProtoJSON ignores unknown fields, takes numbers as strings and null as
absent, which no JSON schema says. ``tests/fuzz/targets.py`` judges by protobuf what must be refused."""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    router = Router(
        tmp_path_factory.mktemp("fuzzed") / "data",
        {
            "ROUTER_LIMITS__SEND_RATE": "0",
            "ROUTER_LIMITS__PAIR_RATE": "0",
            "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
            "ROUTER_LIMITS__WORK_RATE": "0",
        },
    )
    with router.running():
        yield router


@pytest.mark.parametrize(("method", "path", "mode"), REQUESTS)
def test_every_answer_is_one_that_the_document_promises(
    router: Router, method: str, path: str, mode: GenerationMode
) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{router.url}/openapi.json")
    token = router.token("alice")
    checks: list[Any] = [CHECKS.get_one(name) for name in JUDGED]
    sent = 0

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def judged(case: schemathesis.Case[Any]) -> None:
        nonlocal sent
        headers = {"Authorization": f"Bearer {token}"}
        case.call_and_validate(headers=headers, checks=checks, timeout=10)
        sent += 1

    judged()
    assert sent >= 1
    assert httpx.get(f"{router.url}/readyz").is_success
    assert not traceback_in(router.log())

"""What is written down is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema_rs
import openapi_spec_validator
import pytest

from router.core import connections
from router.web import asyncapi, openapi
from router.web.application import ROUTES
from router.web.cors import EXPOSED
from router.web.poke_sockets import POKE
from router.web.problems import KINDS, TYPE_PREFIX
from router.web.transport import websocket
from tests.support.every_metric import every_metric, names
from tests.support.node import PACKAGE
from tests.support.servers import MissingServer

OF_OPERATORS = {"/metrics", "/", "/page.css", "/page.js", "/status.json"}
"""Routes of the admin port, which no client calls."""
DOCS = Path(__file__).parents[2] / "docs"
ASYNCAPI_SCHEMA = PACKAGE / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0-without-$id.json"


def test_the_openapi_document_is_valid_and_covers_every_route() -> None:
    document = openapi.document()
    openapi_spec_validator.validate(document)
    assert set(document["paths"]) == ROUTES - OF_OPERATORS


def test_the_asyncapi_document_is_valid() -> None:
    if not ASYNCAPI_SCHEMA.exists():
        raise MissingServer("the schema of AsyncAPI", "make clients/typescript/node_modules/.ready")
    validator = jsonschema_rs.Draft7Validator(json.loads(ASYNCAPI_SCHEMA.read_bytes()))
    document = asyncapi.document()
    validator.validate(document)
    assert set(document["channels"]["connect"]["messages"]) == {"poke"}
    assert jsonschema_rs.is_valid(document["components"]["messages"]["poke"]["payload"], json.loads(POKE))
    document["channels"]["connect"]["adress"] = "/connect"
    with pytest.raises(jsonschema_rs.ValidationError):
        validator.validate(document)


def test_each_close_code_is_described() -> None:
    """Of those that the router closes with, wherever it does; also where people look."""
    codes = {*connections.CLOSE_CODES, *websocket.CLOSE_CODES}
    assert set(asyncapi.CLOSES) == codes
    described = asyncapi.document()["channels"]["connect"]["x-close-codes"]
    assert [each["code"] for each in described] == sorted(codes)
    for page in ("http.md", "clients.md"):
        listed = {int(code) for code in re.findall(r"\b(?:1\d{3}|44\d\d)\b", (DOCS / page).read_text())}
        assert codes <= listed, page


def test_each_answer_has_the_fields_that_are_described() -> None:
    """Those of every answer, and those that a page may read because CORS exposes them; ``Date`` is of every server."""
    document = openapi.document()
    answers = [
        *document["components"]["responses"].values(),
        *(
            answer
            for routes in document["paths"].values()
            for route in routes.values()
            for answer in route["responses"].values()
            if "$ref" not in answer
        ),
    ]
    assert all("X-Request-Id" in answer["headers"] for answer in answers)
    exposed = set(EXPOSED.decode().split(", ")) - {"Date"}
    assert exposed <= {name for answer in answers for name in answer["headers"]}


def test_no_member_has_a_default() -> None:
    """Generators make a member with a default one that each request must have: the simplest send would not compile."""
    assert '"default":' not in json.dumps(openapi.document()["components"]["schemas"])


def test_each_problem_is_one_of_its_status() -> None:
    """Of every status that a handler answers, and under each route that may answer it."""
    document = openapi.document()
    for kind in KINDS.values():
        named = document["components"]["schemas"][f"Problem{kind.status}"]["properties"]["type"]["enum"]
        assert TYPE_PREFIX + kind.slug in named
    for routes in document["paths"].values():
        for route in routes.values():
            assert ("default" in route["responses"]) == ("401" in route["responses"]) == ("security" not in route)


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"^\| `((?:router|process)_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert documented == names(every_metric())


def test_every_problem_is_documented() -> None:
    documented = (DOCS / "http.md").read_text()
    assert [kind.slug for kind in KINDS.values() if f"`{kind.slug}`" not in documented] == []

"""What is written down is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import openapi_spec_validator

from router.web import openapi
from router.web.application import ROUTES
from router.web.problems import KINDS, TYPE_PREFIX
from tests.support.every_metric import every_metric, names

DOCS = Path(__file__).parents[2] / "docs"


def test_the_openapi_document_is_valid_and_covers_every_route() -> None:
    document = openapi.document()
    openapi_spec_validator.validate(document)
    assert set(document["paths"]) == ROUTES - {"/metrics"}, "which is on the admin port alone"


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

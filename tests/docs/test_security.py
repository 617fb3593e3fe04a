"""docs/security.md: each test that it names is there, and each claim has what holds it, or a word that none does."""

from __future__ import annotations

import re
from functools import cache

from tests.support.repository import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "security.md").read_text()


@cache
def names_in(file: str) -> set[str]:
    return set(re.findall(r"^ *(?:async )?def (test_\w+)\(", (ROOT / "tests" / file).read_text(), re.MULTILINE))


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 100
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file() or (name and name not in names_in(file))
    ]
    assert missing == []


def test_every_promise_has_a_row() -> None:
    _, _, rest = (DOCS / "specification.md").read_text().partition("\n## Promises\n")
    promises = re.findall(r"^### (.+)$", rest.partition("\n## ")[0], re.MULTILINE)
    _, _, table = PAGE.partition("\n## Every promise, and what holds it\n")
    rows = [line.strip("| ").split(" | ") for line in table.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:] if len(row) == 3] == promises


def test_every_claim_says_what_holds_it() -> None:
    """A cell that is empty would be read as held."""
    _, _, table = PAGE.partition("\n## Every promise, and what holds it\n")
    rows = [
        line.split("|")[1:-1] for line in table.partition("\n## ")[0].splitlines() if re.match(r"\| (?!promise)", line)
    ]
    for promise, claim, held in rows:
        assert claim.strip(), promise
        assert re.search(r"`[\w/]+\.py|\*\*.*(?:no test|not held)", held), (promise, claim)

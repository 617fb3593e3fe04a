"""docs/specification.md: what it lists is what there is. Its table of keys is written from the code."""

from __future__ import annotations

import re

from router.cli.app import COMMANDS
from router.dead_reasons import DeadReason
from router.web.application import ROUTES
from tests.support.repository import ROOT

PAGE = (ROOT / "docs" / "specification.md").read_text()


def section(heading: str) -> str:
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def first_column(heading: str) -> set[str]:
    """The code in the first column of the tables of a section."""
    rows = re.findall(r"^\| (`.*?) \|", section(heading), re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


def test_every_route() -> None:
    told = {re.sub(r"^[A-Z]+ |\?.*", "", code) for code in first_column("Routes") | first_column("Ports")}
    assert {path for path in told if path.startswith("/")} == ROUTES


def test_every_command() -> None:
    told = first_column("Command line")
    assert {code.split()[0] for code in told} == {entry.name.split()[0] for entry in COMMANDS}
    for entry in COMMANDS:
        assert any(f"{code} ".startswith(f"{entry.name} ") for code in told), entry.name


def test_every_reason_of_a_dead_letter() -> None:
    assert {reason.value for reason in DeadReason} == first_column("Dead letters")


def test_what_is_planned_is_promised_nowhere_else() -> None:
    """A key or a route that is planned, and stands above too, has been built: take it out of the list."""
    promised, _, planned = PAGE.partition("## Planned")
    for code in re.findall(r"`((?:POST /api/|[a-z]+\.)[a-z_/]+)`", planned):
        there = code.partition(".")[2] or code
        assert f"`{there}`" not in promised, code

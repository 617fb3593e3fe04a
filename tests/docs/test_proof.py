"""docs/proof.md: its figures are those of the pages behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SUMMARY = " ".join((DOCS / "proof.md").read_text().split())
WORDS = {3: "three", 4: "four", 31: "thirty-one", 32: "thirty-two", 33: "thirty-three", 34: "thirty-four"}


def rows(page: str, after: str) -> int:
    """The rows of the first table behind the words ``after``."""
    _, words, rest = (DOCS / page).read_text().partition(after)
    assert words
    table = re.search(r"^\|.*\n\|[-:|]+\n((?:\|.*\n)+)", rest, re.MULTILINE)
    assert table is not None
    return table[1].count("\n")


@pytest.mark.parametrize(
    ("page", "after", "says"),
    [
        ("proof/mutants.md", "<!-- mutants -->", "{} caught, the slowest"),
        ("proof/mutants.md", "<!-- end of mutants -->", "{} that are not are forced"),
        ("proof/simulation.md", "<!-- vendor mutants -->", "{} caught within 120 seeds"),
        ("proof/simulation.md", "<!-- end of vendor mutants -->", "{} by named tests"),
        ("model/README.md", "## Bugs", "{} bugs, each breaks its promise"),
        ("proof/bad-input.md", "**What abuse costs.**", "{} kinds of abusive clients"),
    ],
)
def test_a_figure_is_that_of_its_table(page: str, after: str, says: str) -> None:
    assert says.format(rows(page, after)) in SUMMARY


@pytest.mark.parametrize(
    ("page", "after", "says"),
    [
        ("proof/simulation.md", "## What it found", "The simulation found {} bugs"),
        ("model/README.md", "## What it found", "the model {} that"),
        ("proof/chaos.md", "What it found", "chaos {},"),
        ("proof/simulation.md", "What they found", "the vendors' runs {},"),
    ],
)
def test_what_was_found_is_counted(page: str, after: str, says: str) -> None:
    assert says.format(WORDS[rows(page, after)]) in SUMMARY

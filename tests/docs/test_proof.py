"""docs/proof.md: its figures are those of the pages behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SUMMARY = " ".join((DOCS / "proof.md").read_text().split())
WORDS = {
    3: "three",
    4: "four",
    5: "five",
    8: "eight",
    31: "thirty-one",
    32: "thirty-two",
    33: "thirty-three",
    38: "thirty-eight",
    39: "thirty-nine",
    40: "forty",
}


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
        ("proof/mutants.md", "<!-- mutants -->", "{figure} caught, the slowest"),
        ("proof/mutants.md", "<!-- end of mutants -->", "{figure} that are not are forced"),
        ("proof/simulation.md", "<!-- vendor mutants -->", "{figure} caught within 120 seeds"),
        ("proof/simulation.md", "<!-- end of vendor mutants -->", "{figure} by named tests"),
        ("model/README.md", "## Bugs", "{figure} bugs, each breaks its promise"),
        ("proof/bad-input.md", "**What abuse costs.**", "{figure} kinds of abusive clients"),
        ("proof/simulation.md", "## What it found", "The simulation found {word} bugs"),
        ("model/README.md", "## What it found", "the model {word} that"),
        ("proof/chaos.md", "What it found", "chaos {word},"),
        ("proof/simulation.md", "What they found", "the vendors' runs {word},"),
    ],
)
def test_a_number_is_that_of_its_table(page: str, after: str, says: str) -> None:
    count = rows(page, after)
    assert says.format(figure=count, word=WORDS.get(count)) in SUMMARY

"""What a page, a comment or a docstring refers to is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.repository import ROOT, texts

PAGES = [path for path in texts() if path.suffix == ".md"]
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NAMED = re.compile(r"(?<![\w./-])((?:docs|examples)/[\w./-]+\.md)(#[\w-]+)?")
_OF_RACES = re.compile(r"\bRACES ((?:\d+(?:, )?)+)")


def prose(path: Path) -> str:
    return _FENCE.sub("", texts()[path])


@cache
def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, dashes for blanks, no punctuation, a number where repeated."""
    found: dict[str, int] = {}
    made = set()
    for heading in _HEADING.findall(prose(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        made.add(f"{anchor}-{count}" if count else anchor)
    return made


def broken(source: Path, links: Iterator[tuple[Path, str]]) -> list[str]:
    """Those of (path from the root, anchor) that lead nowhere."""
    return [
        f"{source}: {path}{'#' * bool(anchor)}{anchor}"
        for path, anchor in links
        if not (ROOT / path).exists() or (anchor and anchor not in anchors(path))
    ]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere_in_the_repository(page: Path) -> None:
    def links() -> Iterator[tuple[Path, str]]:
        for link in _LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:", link):
                path, _, anchor = unquote(link).partition("#")
                target = (ROOT / page.parent / path).resolve() if path else ROOT / page
                assert target.is_relative_to(ROOT), f"{link} leaves the repository"
                yield target.relative_to(ROOT), anchor

    assert broken(page, links()) == []


def test_every_page_that_is_named_anywhere_is_there() -> None:
    """In code, comments, error texts and manifests they are written from the root."""
    for source, text in texts().items():
        assert broken(source, ((Path(path), anchor[1:]) for path, anchor in _NAMED.findall(text))) == []


def test_the_specification_is_referred_to_by_its_headings() -> None:
    """A number of a section changes with the page, and nothing would notice."""
    for source, text in texts().items():
        assert not re.search(r"\bspec(ification)?('s)?[,(]? *\(?sections? \d", text, re.IGNORECASE), source


def test_every_race_that_is_named_has_its_section() -> None:
    sections = {anchor.split("-")[1] for anchor in anchors(Path("docs/races.md")) if anchor.startswith("races-")}
    for source, text in texts().items():
        for numbers in _OF_RACES.findall(text):
            assert set(re.findall(r"\d+", numbers)) <= sections, source

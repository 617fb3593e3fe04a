"""The repository stands alone: nothing in it needs, or speaks of, a place outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import ROOT, texts

_UP = re.compile(r"(?<![\w.])(?:\.\./)+|(?<![\w.])(?:\.\./)*\.\.(?=[\s\"'`]|$)", re.MULTILINE)
_FROM_HERE = re.compile(r"__file__\)(?:\.resolve\(\))?(?:\.parents\[(\d+)\]|((?:\.parent)+))")
_OF_ONE_MACHINE = re.compile(r"(?<![\w.~$}>)-])/(?:home|Users|root)/\w+|\b[A-Z]:\\Users\\")


@pytest.mark.parametrize("source", [path for path, text in texts().items() if ".." in text], ids=str)
def test_no_relative_path_leaves_the_repository(source: Path) -> None:
    """From where the file is; a command of a page is typed in the root, or in a folder that it names itself."""
    depth = len(source.parent.parts)
    for found in _UP.findall(texts()[source]):
        assert found.count("..") <= depth, found


@pytest.mark.parametrize("source", [path for path, text in texts().items() if "__file__" in text], ids=str)
def test_no_file_is_looked_for_beside_the_repository(source: Path) -> None:
    for number, parents in _FROM_HERE.findall(texts()[source]):
        up = int(number) + 1 if number else parents.count(".parent")
        assert up <= len(source.parts), "that is beside the repository"


def test_no_path_of_one_machine_is_written_down() -> None:
    """Neither a home directory nor the folder in which this copy happens to be."""
    here = str(ROOT) if len(ROOT.parts) > 2 else None  # a folder in / may be in an image, too
    for source, text in texts().items():
        assert not _OF_ONE_MACHINE.search(text), source
        assert here is None or f"{here}/" not in text, source


def test_nothing_has_to_be_looked_up_elsewhere() -> None:
    """What a number in some tracker means is said where it is named."""
    for source, text in texts().items():
        assert not re.search(r"\bissues? #?\d+", text, re.IGNORECASE), source

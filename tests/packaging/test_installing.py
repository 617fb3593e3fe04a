"""What the docs and the errors say of installing works."""

from __future__ import annotations

import re
import sys

import pytest

from router.config import Config
from router.errors import ConfigError
from router.factory import backends
from tests.support.repository import texts

_FROM_AN_INDEX = re.compile(r"\b(?:pip|pipx|uv|uvx)\b[^\n]*\s['\"]?sealed[-_]router(?=[\s'\"`\[=<>~)]|$)", re.MULTILINE)


NAME = "sealed-router"


@pytest.mark.parametrize("line", [f"pip install {NAME}", f"uv tool install '{NAME}[redis]'", f"`pipx install {NAME}`"])
def test_the_pattern_finds_an_install_from_an_index(line: str) -> None:
    assert _FROM_AN_INDEX.search(line)


def test_nothing_is_installed_from_an_index_that_does_not_have_it() -> None:
    for path, text in texts().items():
        assert not _FROM_AN_INDEX.search(text), f"{path} takes it from an index"


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("router.backends.pubsub")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(ConfigError, match=r"grpc, which is missing: .* pip install '\.\[google\]'"):
        backends(Config.model_validate({"push": {"kind": "pubsub"}})).push()

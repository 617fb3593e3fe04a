"""``docs/production.md`` and the deployment guide name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.cli.app import COMMANDS, load
from router.config import known_keys
from router.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "production.md", ROOT / "examples" / "deploy" / "README.md"]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_every_key_is_one(page: Path) -> None:
    keys = known_keys()
    named = re.findall(rf"`(({'|'.join(keys)})\.[a-z_]+)", page.read_text())
    assert [name for name, section in named if name.partition(".")[2] not in keys[section]] == []
    assert named


def test_every_metric_and_label_is_one() -> None:
    there = {
        metric.name + suffix
        for metric in Metrics().registry.collect()
        for suffix in ({"counter": ("_total",), "histogram": ("", "_bucket")}.get(metric.type, ("",)))
    }
    assert set(re.findall(r"\brouter_[a-z_]+", PAGES[0].read_text())) <= there


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve()
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            # As GitHub names them: without punctuation.
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pages
def test_every_command_line_is_one(page: Path) -> None:
    lines = re.findall(r"(?:^|[ \"])router (?:--config \S+ )?([a-z-]+)((?: [^`#\n]*)?)$", _shell(page), re.MULTILINE)
    for name, rest in lines:
        (entry,) = [entry for entry in COMMANDS if entry.name == name]
        load(entry).make_context(name, rest.split())
    assert lines


def _shell(page: Path) -> str:
    """All shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return re.sub(r"\s+#.*$", "", "\n".join(blocks), flags=re.MULTILINE)

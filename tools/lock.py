"""Does ``requirements.lock`` pin, with hashes, all that ``pyproject.toml`` asks for?"""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIN = re.compile(r"^(?P<requirement>[A-Za-z0-9][^#\\]*?==[^#\\]*?)\s*\\?$", re.MULTILINE)


def lock_problems(root: Path) -> list[str]:
    """What is wrong with the lock, in words."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    pins = _pins(text)
    problems = [f"{name} is not pinned with a hash" for name, (_, hashed) in pins.items() if not hashed]
    if re.search(r"://|^-[-if]", text, re.MULTILINE):
        problems.append("it holds an address or an option; it must hold pins only")
    for requirement in _requirements(root):
        name = canonicalize_name(requirement.name)
        if name not in pins:
            problems.append(f"{requirement} is not in it")
        elif not any(requirement.specifier.contains(version, prereleases=True) for version in pins[name][0]):
            problems.append(f"{requirement} is not met by {name} {' or '.join(pins[name][0])}")
    return problems


def _requirements(root: Path) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    extras = itertools.chain(*project["project"]["optional-dependencies"].values())
    groups = itertools.chain(*project["dependency-groups"].values())
    tools = [listed for listed in groups if isinstance(listed, str)]  # a table names another group
    return [Requirement(text) for text in [*project["project"]["dependencies"], *extras, *tools]]


def _pins(text: str) -> dict[str, tuple[list[str], bool]]:
    """Name -> (pinned versions, all with hashes); a universal lock may pin several by markers."""
    pins: dict[str, tuple[list[str], bool]] = {}
    found = list(PIN.finditer(text))
    for match, following in zip(found, [*found[1:], None], strict=True):
        block = text[match.start() : following.start() if following else len(text)]
        requirement = Requirement(match["requirement"])
        versions, hashed = pins.get(canonicalize_name(requirement.name), ([], True))
        version = str(requirement.specifier).removeprefix("==")
        pins[canonicalize_name(requirement.name)] = ([*versions, version], hashed and "--hash=sha256:" in block)
    return pins

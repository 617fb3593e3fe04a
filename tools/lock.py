"""Do the locks pin, with hashes, what ``pyproject.toml`` asks for: the newest, and the lowest that it allows?"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PIN = re.compile(r"^(?P<requirement>[A-Za-z0-9][^#\\]*?==[^#\\]*?)\s*\\?$", re.MULTILINE)


def lock_problems(root: Path) -> list[str]:
    """What is wrong with the locks, in words."""
    newest, lowest = root / "requirements.lock", root / "requirements-lowest.lock"
    problems = [*_wrong(newest, _requirements(root, "dev", "test")), *_wrong(lowest, _requirements(root, "test"))]
    return [*problems, *_untried(lowest, _requirements(root, "test"))]


def _untried(lock: Path, requirements: Iterable[Requirement]) -> Iterator[str]:
    pins = _pins(lock.read_text(encoding="utf-8"))
    for requirement in requirements:
        bounds = [Version(bound.version) for bound in requirement.specifier if bound.operator == ">="]
        versions, _ = pins.get(canonicalize_name(requirement.name), ([], True))
        if versions and [Version(version) for version in versions] != bounds:
            yield f"{lock.name}: {requirement} is tried with {' or '.join(versions)}"


def _wrong(lock: Path, requirements: Iterable[Requirement]) -> Iterator[str]:
    text = lock.read_text(encoding="utf-8")
    pins = _pins(text)
    yield from (f"{lock.name}: {name} is not pinned with a hash" for name, (_, hashed) in pins.items() if not hashed)
    if re.search(r"://|^-[-if]", text, re.MULTILINE):
        yield f"{lock.name}: it holds an address or an option; it must hold pins only"
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name not in pins:
            yield f"{lock.name}: {requirement} is not in it"
        elif not any(requirement.specifier.contains(version, prereleases=True) for version in pins[name][0]):
            yield f"{lock.name}: {requirement} is not met by {name} {' or '.join(pins[name][0])}"


def _requirements(root: Path, *groups: str) -> list[Requirement]:
    """Of the router with its extras, and of ``groups``."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    extras = itertools.chain(*project["project"]["optional-dependencies"].values())
    listed = itertools.chain(*(project["dependency-groups"][group] for group in groups))
    tools = [text for text in listed if isinstance(text, str)]  # a table names another group
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

"""``python -m tools.sbom FILE``: what a router that is installed with all extras consists of, as CycloneDX 1.6.

Made of ``requirements.lock``: each library with its version, the hashes of its files, and who needs it. The same lock
gives the same file, wherever and whenever it is made.
"""

from __future__ import annotations

import re
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from msgspec import Struct
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from router import __version__
from tools.lock import PIN

ROOT = Path(__file__).parent.parent
NAME = "sealed-router"
NO_TIME = datetime(2020, 2, 2, tzinfo=UTC)
"""As in the archives beside it, which hold no time either."""
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via)? +(?!via)(\S+)", re.MULTILINE)


class Pin(Struct, frozen=True):
    """One library of the lock."""

    name: str
    version: str
    hashes: tuple[str, ...]
    needed_by: frozenset[str]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tools.sbom FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_text(bill(ROOT), encoding="utf-8")
    return 0


def bill(root: Path) -> str:
    """The document, for the project at ``root``."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = _names(project["dependencies"])
    extras = _names(text for listed in project["optional-dependencies"].values() for text in listed)
    pins = list(pinned(text))
    needed, all_of_it = reached(base, pins), reached(base | extras, pins)
    router = Component(name=NAME, version=__version__, type=ComponentType.APPLICATION, bom_ref=NAME)
    parts = {pin: _component(pin, required=pin.name in needed) for pin in pins if pin.name in all_of_it}
    made = Bom(
        components=parts.values(),
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, text),
        metadata=BomMetaData(component=router, timestamp=NO_TIME),
    )
    made.register_dependency(router, [part for pin, part in parts.items() if pin.name in base | extras])
    for pin, part in parts.items():
        made.register_dependency(part, [other for needs, other in parts.items() if pin.name in needs.needed_by])
    return f"{JsonV1Dot6(made).output_as_string(indent=2)}\n"


def pinned(lock: str) -> Iterator[Pin]:
    """The libraries that a lock names."""
    found = list(PIN.finditer(lock))
    for match, following in zip(found, [*found[1:], None], strict=True):
        block = lock[match.start() : following.start() if following else len(lock)]
        requirement = Requirement(match["requirement"])
        yield Pin(
            canonicalize_name(requirement.name),
            str(requirement.specifier).removeprefix("=="),
            tuple(_HASH.findall(block)),
            frozenset(canonicalize_name(name) for name in _VIA.findall(block)),
        )


def reached(names: Iterable[str], pins: Iterable[Pin]) -> set[str]:
    """``names``, and all that they need."""
    found, pins = set(names), list(pins)
    while more := {pin.name for pin in pins if pin.needed_by & found} - found:
        found |= more
    return found


def _names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def _component(pin: Pin, *, required: bool) -> Component:
    purl = PackageURL("pypi", None, pin.name, pin.version)
    return Component(
        name=pin.name,
        version=pin.version,
        purl=purl,
        bom_ref=str(purl),
        scope=ComponentScope.REQUIRED if required else ComponentScope.OPTIONAL,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in pin.hashes],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

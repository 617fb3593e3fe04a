"""docs/conformance.md: its example for TypeScript passes the kit."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_conformance import example, kit, passes
from tests.support.node import FLAGS, PACKAGE, node


def test_the_typescript_example_passes(built: None, tmp_path: Path) -> None:
    source = PACKAGE / "dist" / "conformance.mjs"  # here it finds the package by its name
    source.write_text(example("js"))
    passes(kit(tmp_path, "--", node(), *FLAGS, str(source)))

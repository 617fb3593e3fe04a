"""What the tests of clients share."""

from __future__ import annotations

import pytest

from tests.support.node import compile_all


@pytest.fixture(scope="session")
def built() -> None:
    """The TypeScript package and its tests, compiled."""
    compile_all()

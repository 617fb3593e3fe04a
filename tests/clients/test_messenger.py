"""``examples/web_messenger`` in two windows of Chromium."""

from __future__ import annotations

import sys

from tests.support.node import BROWSER_SECONDS, PACKAGE, node, run
from tests.support.servers import chromium_program

EXAMPLES = PACKAGE.parents[1] / "examples"


def test_two_people_talk(built: None) -> None:
    """By keyboard, online, offline, through a kill of the router while they write, and with the command line."""
    chromium = str(chromium_program())
    script = "dist/tests/browser/messenger.test.js"
    run(node(), script, seconds=BROWSER_SECONDS, CHROMIUM=chromium, PYTHON=sys.executable, EXAMPLES=str(EXAMPLES))

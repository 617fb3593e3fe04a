"""What the package brings with it is the same in every locale."""

from __future__ import annotations

import os
import subprocess
import sys

from router.backends.redis.scripts import Scripts

BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Where Python reads files as ASCII."""


def in_the_barest_locale(code: str) -> str:
    environ = {**os.environ, **BARE}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout


def test_lua_scripts() -> None:
    code = "from router.backends.redis.scripts import Scripts\nprint(Scripts().call('route', ())[1])"
    assert in_the_barest_locale(code).strip() == Scripts().call("route", ())[1]


def test_schema() -> None:
    code = "import sqlite3\nfrom router.backends.embedded.schema import create\ncreate(sqlite3.connect(':memory:'))"
    in_the_barest_locale(code)

"""``clients/typescript``: its own tests, against a router that is started for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import __version__
from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from tests.support.node import COMPILER, FLAGS, PACKAGE, SECONDS, node, run
from tests.support.service import Router

TESTS = sorted(path.name.removesuffix(".ts") for path in (PACKAGE / "tests").glob("*.test.ts"))
PAGE = PACKAGE.parents[1] / "docs" / "clients.md"
BASE = "http://127.0.0.1:8082"
USERS = 60


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    started = Router(tmp_path_factory.mktemp("router") / "data")
    with started.running():
        yield started


@pytest.mark.parametrize("name", TESTS)
def test_it(built: None, router: Router, name: str) -> None:
    key, now = EmbeddedKey.open(router.data_dir), SystemClock().now()
    users = [f"urn:sm:user:{name.partition('.')[0]}-{number}" for number in range(USERS)]
    tokens = json.dumps({user: key.sign(user, now, SECONDS) for user in users})
    run(node(), *FLAGS, f"dist/tests/{name}.js", ROUTER_URL=router.url, ROUTER_TOKENS=tokens)


def test_the_example_for_typescript(built: None, router: Router, tmp_path: Path) -> None:
    """Of docs/clients.md, as it stands there."""
    (example,) = re.findall(r"^```ts\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source = PACKAGE / "dist" / "example.mts"  # here it finds the package by its name
    source.write_text(example.replace(BASE, router.url))
    run(node(), COMPILER, "--ignoreConfig", "--strict", "--module", "nodenext", "--types", "node", source)
    id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello").strip()
    command = [node(), *FLAGS, str(source.with_suffix(".mjs"))]
    environment = {**os.environ, "BOB": router.token("bob")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"saved {id_}\n"
        process.kill()
    assert json.loads((tmp_path / f"{id_}.json").read_text())["encryptedData"] == "aGVsbG8="


def test_it_has_the_version_of_the_router() -> None:
    assert json.loads((PACKAGE / "package.json").read_text())["version"] == __version__


def test_whoever_installs_it_installs_nothing_else() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert not package.keys() & {"dependencies", "peerDependencies", "optionalDependencies"}


def test_the_lock_names_no_registry() -> None:
    """So that each machine takes the packages from the registry that it is told to use."""
    assert not re.search(r"resolved|https?:", (PACKAGE / "package-lock.json").read_text())

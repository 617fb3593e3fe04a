"""docs/clients.md: its examples are run as they stand there."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.service import Router

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
BASE = "http://127.0.0.1:8082"
SECONDS = 30.0
NODE = shutil.which("node")


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


def examples(language: str, router: Router) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return [example.replace(BASE, router.url) for example in found]


def environment(router: Router) -> dict[str, str]:
    """Where ``router`` and ``python3`` are this installation's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**router.environment, "PATH": path}


def with_settings(command: list[str], router: Router) -> list[str]:
    """``command`` in the shell in which the page's settings were typed."""
    setting, *_ = examples("sh", router)
    return ["bash", "-c", f'set -eu\n{setting}exec "$@"', "bash", *command]


@contextmanager
def started(command: list[str], router: Router, directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        with_settings(command, router),
        cwd=directory,
        env=environment(router),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_shell_examples(router: Router, tmp_path: Path) -> None:
    setting, sending, together, receiving, following = examples("sh", router)
    routed = 'until router inspect-queue bob --json | grep -q "\\"tier\\""; do :; done\n'
    script = f"set -eu\n{setting}{sending}echo\n{sending}echo\n{routed}{receiving}echo\n{following}echo\n{together}"
    with router.running():
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment(router),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert json.loads(router.cli("inspect-queue", "bob", "--json"))["messages"] == []
    first, second, batch, rest, accepted = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert rest == {"messages": []}
    assert [set(result) for result in accepted["results"]] == [{"id"}, {"id"}]
    (message,) = batch["messages"]
    assert message["id"] == first["id"]
    assert base64.b64decode(message["envelope"]["encryptedData"]) == b"hello"


def test_the_python_example(router: Router, tmp_path: Path) -> None:
    (example,) = examples("python", router)
    with router.running():
        id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello").strip()
        with started([sys.executable, "-c", example], router, tmp_path) as process:
            assert first_line(process) == f"saved {id_}"
            assert json.loads((tmp_path / f"{id_}.json").read_text())["encryptedData"] == "aGVsbG8="
            id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "poked").strip()
            assert first_line(process) == f"saved {id_}"


@pytest.mark.skipif(NODE is None, reason="no node here to run the example for browsers")
def test_the_browser_example(router: Router, tmp_path: Path) -> None:
    (example,) = examples("js", router)
    (tmp_path / "listen.mjs").write_text(example)
    (tmp_path / "page.mjs").write_text(
        'import { listen } from "./listen.mjs";\n'
        "console.warn = () => {};\n"
        "let asked = 0;\n"
        "const token = async () => {\n"
        '  if (asked++ === 0) throw new Error("the identity service is down");\n'
        "  return process.env.BOB;\n"
        "};\n"
        f'listen("{router.url}", token, async (batch) => '
        "batch.forEach((message) => console.log(message.id)));\n"
    )
    with router.running():
        id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello").strip()
        command = [str(NODE), "--experimental-websocket", "--no-warnings", "page.mjs"]
        with started(command, router, tmp_path) as process:
            assert first_line(process) == id_
            id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "poked").strip()
            assert first_line(process) == id_
            while json.loads(router.cli("inspect-queue", "bob", "--json"))["messages"]:
                assert process.poll() is None

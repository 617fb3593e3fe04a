"""``python -m tools.trial [PYTHON…]``: is what ``make dist`` built enough, for pip, pipx and uv, with each PYTHON?

Each installs the wheel outside of this repository, and what it installed runs ``serve``, ``send`` and
``inspect-queue``. Then the sdist is unpacked in an empty folder, set up by its own Makefile, and runs a part of its
tests. It asks the package index for what the lock and the wheel name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = "[redis,google]"
MODULES = ("router.backends.redis.backend", "router.backends.pubsub.backend", "router.backends.firestore.backend")
TESTS = (
    "tests/unit",
    "tests/core",
    "tests/cli/test_data_location.py",
    "tests/contract/test_embedded.py",
    "tests/packaging",
)
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def main(arguments: list[str]) -> int:
    """0 if all worked."""
    (wheel,), (sdist,) = (sorted((ROOT / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    for word in arguments or [sys.executable]:
        python = shutil.which(word)
        if python is None:
            print(f"there is no {word}: name Pythons that are on your PATH", file=sys.stderr)
            return 2
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        for name, attempt in attempts(python, wheel, sdist):
            with tempfile.TemporaryDirectory(prefix="router-trial-") as folder:
                attempt(Path(folder))
            print(f"{version}, {name}: works", flush=True)
    return 0


def attempts(python: str, wheel: Path, sdist: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What there is to try, each in an empty folder that it is given."""
    yield "pip", lambda folder: try_router(folder, with_pip(python, wheel, folder))
    yield "pipx", lambda folder: try_router(folder, with_pipx(python, wheel, folder))
    yield "uv", lambda folder: try_router(folder, with_uv(python, wheel, folder))
    yield "sdist", lambda folder: try_sdist(python, sdist, folder)


def with_pip(python: str, wheel: Path, folder: Path) -> Path:
    """The folder of the ``router`` that pip installed."""
    _run([python, "-m", "venv", folder / "venv"])
    _run([folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q", f"{wheel}{EXTRAS}"])
    return folder / "venv" / "bin"


def with_pipx(python: str, wheel: Path, folder: Path) -> Path:
    """The folder of the ``router`` that pipx installed."""
    _run([python, "-m", "venv", folder / "tool"])
    _run([folder / "tool" / "bin" / "python", "-m", "pip", "install", "-q", "pipx"])
    homes = {
        "PIPX_HOME": str(folder / "pipx"),
        "PIPX_BIN_DIR": str(folder / "bin"),
        "PIPX_MAN_DIR": str(folder / "man"),
    }
    _run([folder / "tool" / "bin" / "pipx", "install", "-q", "--python", python, f"{wheel}{EXTRAS}"], homes)
    return folder / "bin"


def with_uv(python: str, wheel: Path, folder: Path) -> Path:
    """The folder of the ``router`` that uv installed."""
    uv = Path(sys.executable).with_name("uv")
    homes = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    _run([uv, "tool", "install", "-q", "--python", python, f"{wheel}{EXTRAS}"], homes)
    return folder / "bin"


def try_router(folder: Path, programs: Path) -> None:
    """Run it as its user does, with nothing in the environment but what is set here."""
    router = programs / "router"
    _run([router.resolve().with_name("python"), "-c", f"import {', '.join(MODULES)}"])
    api, ws = _free_ports()
    own = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(folder),
        "ROUTER_SERVER__API_PORT": str(api),
        "ROUTER_SERVER__WS_PORT": str(ws),
        "ROUTER_SERVER__ADMIN_PORT": "0",
    }

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([router, *words], env=own, cwd=folder, capture_output=True, text=True, check=False)

    assert "serve" in ask("--help").stdout
    serving = subprocess.Popen([router, "serve"], env=own, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (sent := ask("send", "--as", "alice", "--to", "bob", "--data", "hello")).returncode:
            assert time.monotonic() < deadline, sent.stderr
            time.sleep(0.2)
        looked = ask("inspect-queue", "bob")
        assert sent.stdout.split()[-1] in looked.stdout, looked.stdout + looked.stderr
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(STOP_SECONDS) == 0, "it does not end with 0 on SIGTERM"
    finally:
        serving.kill()
        serving.wait()


def try_sdist(python: str, sdist: Path, folder: Path) -> None:
    """Its own Makefile sets it up, as ``make test`` does, and a part of its tests pass."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    _run(["make", "-C", unpacked, f"PYTHON={python}", ".venv/.ready"])
    _run(
        [unpacked / ".venv" / "bin" / "python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *TESTS],
        where=unpacked,
    )


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _run(command: list[str | Path], more: Mapping[str, str] | None = None, where: Path | None = None) -> None:
    subprocess.run(command, env=os.environ | dict(more or {}), cwd=where, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

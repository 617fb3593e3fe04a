"""``python -m tools.image FOLDER``: the Dockerfile's build without Docker, each of its paths below FOLDER.

Runs what the first stage says, asks the package index for what the lock pins, and then looks at what the last stage
would hold: does it start, as another user where this one is root, and is it free of tools?
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "examples" / "deploy" / "Dockerfile"
PATHS = ("/src", "/tools", "/opt/router", "/dist")
TOOLS = ("pip", "hatchling", "setuptools", "mypy", "ruff", "pytest", "uv")
USER = 10001
START_SECONDS = 30


def main(arguments: list[str]) -> int:
    """0 if the image would work."""
    if len(arguments) != 1:
        print("usage: python -m tools.image FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0]).resolve()
    for word, rest in build_stage():
        if word == "COPY":
            _copy(folder / "src", rest.split())
        elif word == "RUN":
            command = mapped(rest, folder)
            print(f"+ {command}")
            subprocess.run(["sh", "-euc", command], cwd=folder / "src", check=True)
    problems = list(image_problems(folder / "opt" / "router"))
    print("\n".join(problems) or "the image would work")
    return int(bool(problems))


def build_stage() -> Iterator[tuple[str, str]]:
    """(instruction, arguments) up to the last FROM."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    first, _, _ = text.removeprefix("\n").partition("\nFROM ")
    for line in first.replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word:
            yield word, " ".join(rest.split())


def mapped(command: str, folder: Path) -> str:
    """``command`` with the image's paths below ``folder``, and this Python for the image's."""
    command = re.sub(r"/usr/local/bin/python|(?<=^)python(?= )", sys.executable, command)
    return re.sub(rf"(?<![\w.])({'|'.join(PATHS)})(?=[/\s]|$)", rf"{folder}\1", command)


def _copy(into: Path, words: list[str]) -> None:
    *sources, target = words
    for source in sources:
        goal = into / target / Path(source).name if target == "./" else into / target
        goal.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, goal, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, goal)


def image_problems(venv: Path) -> Iterator[str]:
    """What is wrong with the environment that the last stage copies."""
    python = venv / "bin" / "python"
    for tool in TOOLS:
        if not subprocess.run([python, "-c", f"import {tool}"], capture_output=True, check=False).returncode:
            yield f"{tool} is in the image"
    for module in ("redis", "google.cloud.firestore", "google.cloud.pubsub", "opentelemetry.exporter.otlp.proto.http"):
        if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            yield f"{module} is missing"
    yield from _start(venv)


def _may_run(python: Path) -> bool:
    """Whether the image's user can reach this Python: one in a home directory is for its owner alone."""
    try:
        return subprocess.run([python, "-c", ""], user=USER, check=False).returncode == 0
    except PermissionError:
        return False


def _start(venv: Path) -> Iterator[str]:
    """Start the pipeline as the image does and ask its health check; it ends by SIGTERM."""
    data, port, python = venv.parent.parent / "data", 18_080, venv / "bin" / "python"
    data.mkdir(exist_ok=True)
    user = USER if os.getuid() == 0 and _may_run(python) else None
    print(f"starting it as user {os.getuid() if user is None else user}")
    if user is not None:
        os.chown(data, user, -1)
    own = {
        "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
        "PORT": str(port),
        "ROUTER_SERVER__ADMIN_PORT": "0",
        "ROUTER_EMBEDDED__DATA_DIR": str(data / "router"),
    }
    running = subprocess.Popen([venv / "bin" / "router", "process"], env=own, cwd=data, user=user)
    try:
        alive = [str(python), "-m", "router.healthcheck"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(alive, env=own, cwd=data, user=user, capture_output=True, check=False).returncode:
            if running.poll() is not None or time.monotonic() > deadline:
                yield "it does not start"
                return
            time.sleep(0.2)
        running.terminate()
        if running.wait(START_SECONDS) != 0:
            yield "it does not end with 0 on SIGTERM"
    finally:
        running.kill()
        running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

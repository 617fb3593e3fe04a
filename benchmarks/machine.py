"""What a run was made on. No name of a host, no path."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

LIBRARIES = (
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "msgspec",
    "pyjwt",
    "cryptography",
    "pydantic",
)
_SYNCS = 500
_PAGE = bytes(4096)


class Machine(Struct):
    """The machine and the versions of what runs on it."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    sqlite: str
    syncs_per_second: float
    """How often the disk takes 4 KiB and an fdatasync, one after the other: what durable accepts share."""
    libraries: dict[str, str]


def describe(directory: Path, libraries: Sequence[str] = ()) -> Machine:
    """This one; ``directory`` is on the disk that the routers use. ``libraries``: more of them that count."""
    return Machine(
        cpu=_first("/proc/cpuinfo", "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 1024**2, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        sqlite=sqlite3.sqlite_version,
        syncs_per_second=round(_syncs(directory)),
        libraries={name: version(name) for name in ("sealed-router", *LIBRARIES, *libraries)},
    )


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        field, _, value = line.partition(":")
        if field.strip() == name:
            return value.strip()
    return "unknown"


def _syncs(directory: Path) -> float:
    with tempfile.TemporaryFile(dir=directory) as file:
        started = time.perf_counter()
        for _ in range(_SYNCS):
            os.write(file.fileno(), _PAGE)
            os.fdatasync(file.fileno())
        return _SYNCS / (time.perf_counter() - started)

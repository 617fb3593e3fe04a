"""This machine and this process: what every service needs of it."""

from __future__ import annotations

import resource
from typing import Literal

from router import cores
from router.findings import Finding, fine, warning

FEW_FILES = 8192


def open_files(limit: int | None = None) -> Finding:
    """Whether a service may open enough files; ``limit`` is the system's hard one, which services take, if unset."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if limit is None else limit
    check = "machine.open_files"
    if hard == resource.RLIM_INFINITY:
        return fine(check, "no limit")
    if hard >= FEW_FILES:
        return fine(check, f"up to {hard}")
    why = f"Each WebSocket needs one open file: with this limit, `serve-ws` holds fewer than {hard} clients."
    fix = "ulimit -Hn 65536 as root; systemd: LimitNOFILE=65536; Docker: --ulimit nofile=65536"
    return warning(check, f"at most {hard}", why, fix)


def workers(wanted: int | Literal["auto"], usable: int | None = None) -> Finding:
    """Whether there are cores for the workers; ``usable``: how many there are, if unset those of this process."""
    check, usable = "machine.workers", usable or cores.usable()
    count = usable if wanted == "auto" else wanted
    if count <= usable:
        return fine(check, f"{count} for {usable} cores")
    why = "Each worker takes memory and a connection pool of its own; those beyond the cores make nothing faster."
    return warning(check, f"{count} for {usable} cores", why, 'set server.workers to "auto", or give it more cores')

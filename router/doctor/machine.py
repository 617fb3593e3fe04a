"""This machine and this process: what every service needs of it."""

from __future__ import annotations

import resource

from router.doctor.findings import Finding, fine, warning

FEW_FILES = 8192


def open_files(limit: int | None = None) -> Finding:
    """Whether this process may open enough files; ``limit`` is the system's where it is not given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if limit is None else (limit, limit)
    check = "machine.open_files"
    if soft == resource.RLIM_INFINITY:
        return fine(check, "no limit")
    if soft >= FEW_FILES:
        return fine(check, f"up to {soft}")
    why = f"Each WebSocket takes one: `serve-ws` holds fewer than {soft} clients under this limit."
    how = f"ulimit -n {min(65_536, hard)}" if hard >= FEW_FILES else "ulimit -n 65536, as root"
    return warning(check, f"at most {soft}", why, f"{how}; systemd: LimitNOFILE=65536; Docker: --ulimit nofile=65536")

"""How many cores this process may use: those that it may run on, and what its control group grants it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable(groups: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """At least 1. A container of Docker or Kubernetes, or a unit of systemd, may have less than the machine (`--cpus`,
    `limits.cpu`, `CPUQuota`); a part of a core counts as one."""
    granted = [quota for quota in _quotas(groups, own) if quota is not None]
    return max(1, min([_allowed(), *granted]))


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(groups: Path, own: Path) -> list[int | None]:
    """Of the control group (version 2) of this process, and of all that it is in."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    (name,) = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")] or [""]
    path = PurePosixPath(name)
    return [_quota(groups / group / "cpu.max") for group in (path, *path.parents)]


def _quota(file: Path) -> int | None:
    """Of ``cpu.max``, "<µs of a period> <µs>" or "max <…>"."""
    try:
        time, period = file.read_text(encoding="ascii").split()
        return -(-int(time) // int(period))
    except (OSError, ValueError):
        return None

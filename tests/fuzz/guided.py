"""One target under atheris, guided by coverage of the router; see ``tests/fuzz/__main__.py``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["router"]):  # before anything else imports it
    from tests.fuzz.targets import REGRESSIONS, TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    target, seeds = TARGETS[name]
    for seed in [*seeds(), *REGRESSIONS[name]]:
        target(seed)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

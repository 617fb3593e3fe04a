"""The command line: parsing, printing and exit codes, and nothing else.

``main`` is the entry point. It imports the rest only when it runs, so that an interrupt is handled from the start.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with a code of ``router.cli.exits.Code``."""
    try:
        from router.cli.stdio import prepare  # noqa: PLC0415

        prepare()
        code = _flushed(_run())
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run() -> int:
    from router.cli.app import command  # noqa: PLC0415
    from router.cli.failures import report  # noqa: PLC0415

    try:
        command().main(prog_name="router")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:  # noqa: BLE001 - the last place where it can be told in plain words
        return report(error)
    return 0


def _flushed(code: int) -> int:
    from router.cli.failures import report  # noqa: PLC0415
    from router.cli.stdio import OutputFailed  # noqa: PLC0415

    try:
        sys.stdout.flush()
    except OutputFailed as error:
        return report(error)
    return code

"""``python -m router.cli.worker DESCRIPTOR``: one of several workers, which their parent starts."""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

from router.cli.exits import Code
from router.cli.failures import report
from router.cli.stdio import prepare
from router.service import run_worker
from router.workers.order import Program, load

PROGRAM = Program([sys.executable, "-P", "-m", "router.cli.worker"], Code.CONFIG)


def main() -> NoReturn:
    """Run the worker and exit with a code of ``Code``."""
    prepare()
    end = socket.socket(fileno=int(sys.argv[1]))
    try:
        run_worker(load(sys.stdin.buffer.read()), end)
    except Exception as error:  # noqa: BLE001 - the last place where it can be told in plain words
        sys.exit(report(error))
    sys.exit(Code.OK)


if __name__ == "__main__":
    main()

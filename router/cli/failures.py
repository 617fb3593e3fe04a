"""What a user sees when something fails: one line, never a traceback unless asked for."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from router.cli.exits import Code, code_of

DEBUG_VARIABLE = "ROUTER_DEBUG"


def report(error: Exception) -> Code:
    """Say on stderr what ``error`` means, unless the reader of the output has ended; returns the exit code for it."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    code = code_of(error)
    if code is not Code.BROKEN_PIPE:
        typer.echo(f"error: {_in_words(error, code)}", err=True)
    return code


def _in_words(error: Exception, code: Code) -> str:
    if code is Code.SOFTWARE:
        name = type(error).__name__
        return f"a bug in the router ({name}: {error}); set {DEBUG_VARIABLE}=1 and run it again to see where"
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"cannot use{where}: {error.strerror or error}"
    return str(error)

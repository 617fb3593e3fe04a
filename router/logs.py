"""Structured logs to stderr: JSON in containers, readable on a terminal. Never a payload, token or sender.

A reader that stops reading them delays nothing: see ``router.stderr``.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO, cast

import structlog

from router.errors import RouterError
from router.stderr import Stderr, Writer, descriptor_of

TRACE_ID = "trace_id"
"""The field of a line that names its trace (W3C Trace Context), as 32 hexadecimal digits."""
SPAN_ID = "span_id"
CLOUD_RUN = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")
"""One of these variables is set wherever Cloud Run runs a container."""
MAX_ERRORS = 20
"""A log entry shows this many errors of one chain at most."""

# Until ``configure`` is called: the output of a command is what it was asked for, and nothing beside it.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


_writers: list[Writer] = []
"""At most one: what writes the log of this process."""


_trace_of_line: list[Callable[[], Mapping[str, str]]] = []
"""At most one: what says in which trace a line is written."""
_origin: dict[str, str] = {}
"""What each line says of the process that writes it."""


def request_fields(request_id: str, trace_id: str | None = None) -> dict[str, str]:
    """What each line has that is logged for a request."""
    return {"request_id": request_id} if trace_id is None else {"request_id": request_id, TRACE_ID: trace_id}


def begin_request(request_id: str, trace_id: str | None) -> None:
    """From here on each line of this task is for this request.

    Never undone, since each request is a task of its own. It may have begun as a part of another one's, whose trace it
    leaves.
    """
    structlog.contextvars.bind_contextvars(**request_fields(request_id, trace_id))
    if trace_id is None:
        structlog.contextvars.unbind_contextvars(TRACE_ID)


def name_origin(**fields: str) -> None:
    """From here on each line of this process has ``fields``; on a terminal, only the one named ``process``."""
    _origin.update(fields)


def name_traces(fields: Callable[[], Mapping[str, str]]) -> None:
    """From here on each line of this process has what ``fields`` returns while it is written."""
    _trace_of_line[:] = [fields]


def configure(log_format: str, level: str, origin: Mapping[str, str] | None = None, project: str | None = None) -> None:
    """Set up logging for this process; ``auto`` is text on a terminal, ``google`` on Cloud Run and JSON elsewhere.

    ``origin``: for ``name_origin``. ``project``: the Google Cloud project that has the traces.
    """
    terminal = sys.stderr.isatty()
    if log_format == "auto":
        log_format = "text" if terminal else "google" if any(map(os.environ.get, CLOUD_RUN)) else "json"
    # https://no-color.org
    colors = terminal and not os.environ.get("NO_COLOR")
    renderers: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
        if log_format == "text"
        else [structlog.processors.JSONRenderer()]
    )
    if log_format == "google":
        renderers.insert(0, _for_google(project))
    _origin.clear()
    name_origin(**(origin or {}))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_process if log_format == "text" else _with_origin,
        _with_trace,
    ]
    handler = logging.StreamHandler[TextIO]()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_traceback),
                *renderers,
            ],
        )
    )
    handler.setStream(_never_waiting(sys.stderr, handler.format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    root.setLevel(level.upper())
    # Their own start-up lines, and what they say of bad requests and torn connections, say nothing that ours do not.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


Line = dict[str, Any]


def _with_origin(_logger: Any, _method: str, line: Line) -> Line:
    return {**_origin, **line}


def _with_process(_logger: Any, _method: str, line: Line) -> Line:
    return {**line, "process": _origin["process"]} if "process" in _origin else line


def _with_trace(_logger: Any, _method: str, line: Line) -> Line:
    for fields in _trace_of_line:
        line.update(fields())
    return line


def _for_google(project: str | None) -> Callable[[Any, str, Line], Line]:
    """Name the fields as https://cloud.google.com/logging/docs/structured-logging does."""

    def rename(_logger: Any, _method: str, line: Line) -> Line:
        named = {
            "severity": line.pop("level", "default").upper(),
            "message": line.pop("event", ""),
            "time": line.pop("timestamp"),
        }
        if project is not None and TRACE_ID in line:
            named["logging.googleapis.com/trace"] = f"projects/{project}/traces/{line[TRACE_ID]}"
            if SPAN_ID in line:
                named["logging.googleapis.com/spanId"] = line[SPAN_ID]
        return named | line

    return rename


def _never_waiting(stream: TextIO, form: Callable[[logging.LogRecord], str]) -> TextIO:
    """``sys.stderr`` from here on, for the log and for whatever else this process says."""
    descriptor = descriptor_of(stream)
    if descriptor is None:
        return stream

    def dropped_line(count: int) -> str:
        words = f"{count} lines were dropped here, since the reader of the log had stopped reading"
        return form(logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, None, None))

    writer = Writer(descriptor, dropped_line)
    _writers[:] = [writer]
    atexit.register(writer.finish)
    sys.stderr = cast("TextIO", Stderr(stream, writer))
    return sys.stderr


def dropped() -> int:
    """How many lines were dropped since nobody read them."""
    return sum(writer.dropped for writer in _writers)


def finish() -> None:
    """Return when all is written, or when nobody has read it for a second; for those who end without ``atexit``."""
    for writer in _writers:
        writer.finish()


def _traceback(exc_info: Any) -> str:
    """Where it failed, and in what kind of error; the words only of errors that quote no data.

    A ``KeyError`` or ``ValueError`` of a library repeats what it was given, which may be a payload or a token.
    """
    shown = []
    for error, _ in zip(_chain(exc_info[1]), range(MAX_ERRORS), strict=False):
        words = f": {error}" if isinstance(error, RouterError | OSError) else ""
        shown.append("".join([*traceback.format_tb(error.__traceback__), type(error).__qualname__, words]))
    return "\n".join(shown)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, those within it, and those that led to it."""
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _chain(inner)
    yield from _chain(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return found

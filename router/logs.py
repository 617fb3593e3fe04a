"""Structured logs to stderr: JSON in containers, readable on a terminal. Never a payload, never a token."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(log_format: str, level: str) -> None:
    """Set up logging for this process; ``auto`` is text on a terminal and JSON elsewhere."""
    terminal = sys.stderr.isatty()
    as_json = log_format == "json" or (log_format == "auto" and not terminal)
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=terminal)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their own start-up lines, and what they say of bad requests and torn connections, say nothing that ours do not.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_no_false_alarm)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    """uvicorn takes each handshake that is refused by an answer for one that was forgotten."""
    return record.msg != "ASGI callable returned without completing handshake."


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return found

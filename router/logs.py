"""Structured logs to stderr: JSON in containers, readable on a terminal. Never a payload, never a token."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Until ``configure`` is called: the output of a command is what it was asked for, and nothing beside it.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


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
    # Their own start-up lines and errors for torn connections say nothing that ours do not.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return found

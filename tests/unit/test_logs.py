"""RACES 40: what a log says of an error."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Iterator

import pytest
import structlog

from router import logs
from router.errors import Unavailable
from tests.support.tracebacks import traceback_in

SECRET = "MARKER-PAYLOAD"


@pytest.fixture(params=["json", "text"])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a service logs from here on."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn", "websockets", "httpx")}
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure(request.param, "debug")
    yield stderr
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def fail() -> None:
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError as error:
        raise ExceptionGroup("several", [Unavailable("the disk is slow"), LookupError(SECRET)]) from error


@pytest.mark.parametrize("ours", [True, False])
def test_an_error_is_shown_without_the_data_that_it_quotes(said: io.StringIO, ours: bool) -> None:
    """Where and what is said, whoever logs it; an error of our own also says why."""
    logger = logs.logger("router") if ours else logging.getLogger("somebody.else")
    try:
        fail()
    except ExceptionGroup:
        logger.exception("request failed")
    text = said.getvalue()
    assert SECRET not in text
    for word in ("request failed", "in fail", "ValueError", "KeyError", "LookupError", "Unavailable: the disk is slow"):
        assert word in text
    assert "request failed" in traceback_in(text), "those who look for errors in logs must see it"


def test_a_log_line_without_an_error_is_not_taken_for_a_traceback(said: io.StringIO) -> None:
    logs.logger("router").warning("refused", detail='File "x" is no line of a traceback')
    assert said.getvalue()
    assert not traceback_in(said.getvalue())


def test_what_python_says_itself_is_seen() -> None:
    try:
        fail()
    except ExceptionGroup:
        assert traceback_in(traceback.format_exc())

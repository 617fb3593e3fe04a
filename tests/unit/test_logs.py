"""RACES 40: what a log says of an error."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from router import logs
from router.errors import Unavailable
from tests.support.tracebacks import traceback_in

SECRET = "MARKER-PAYLOAD"


@pytest.fixture(params=["json", "text", "google"])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a service logs from here on."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn", "websockets", "httpx")}
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure(request.param, "debug")
    yield stderr
    logs._origin.clear()
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


def lines(log: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.mark.parametrize("said", ["json", "google"], indirect=True)
def test_each_line_says_which_process_writes_it(said: io.StringIO) -> None:
    """Whoever logs; what a line says itself stays."""
    logs.name_origin(service="serve-api", node="n1")
    logs.logger("router").info("ready", node="n2")
    logging.getLogger("somebody.else").warning("slow")
    assert [(line["service"], line["node"]) for line in lines(said)] == [("serve-api", "n2"), ("serve-api", "n1")]


@pytest.mark.parametrize("said", ["text"], indirect=True)
def test_on_a_terminal_a_line_says_only_which_worker_writes_it(said: io.StringIO) -> None:
    logs.name_origin(service="serve", node="n1", process="worker-1")
    logs.logger("router").info("ready")
    assert "process=worker-1" in said.getvalue()
    assert "n1" not in said.getvalue()


@pytest.mark.parametrize("said", ["google"], indirect=True)
def test_google_finds_severity_message_time_and_error(said: io.StringIO) -> None:
    """https://cloud.google.com/logging/docs/structured-logging names the fields."""
    try:
        fail()
    except ExceptionGroup:
        logs.logger("router").exception("request failed", path="/api/send")
    logs.logger("router").debug("fine")
    failed, fine = lines(said)
    assert (failed["severity"], failed["message"], failed["path"]) == ("ERROR", "request failed", "/api/send")
    assert datetime.fromisoformat(failed["time"]).tzinfo is UTC
    assert "in fail" in failed["exception"]
    assert fine["severity"] == "DEBUG"
    assert not {"level", "event", "timestamp"} & (failed.keys() | fine.keys())


@pytest.mark.parametrize("said", ["google"], indirect=True)
def test_google_finds_the_trace_of_a_line_where_the_project_is_known(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", said)
    trace = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}
    logs.logger("router").info("refused", **trace)
    logs.configure("google", "info", project="my-project")
    logs.logger("another").info("refused", **trace)
    logs.logger("another").info("without a trace")
    unknown, known, without = lines(said)
    assert unknown["trace_id"] == known["trace_id"] == trace["trace_id"]
    name = "logging.googleapis.com/trace"
    assert known[name] == "projects/my-project/traces/4bf92f3577b34da6a3ce929d0e0e4736"
    assert known["logging.googleapis.com/spanId"] == trace["span_id"]
    assert name not in unknown.keys() | without.keys()


@pytest.mark.parametrize("said", ["json"], indirect=True)
@pytest.mark.parametrize("variable", ["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"])
def test_cloud_run_is_known_by_its_variables(said: io.StringIO, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr("sys.stderr", said)
    logs.configure("auto", "info")
    logs.logger("elsewhere").info("hello")
    monkeypatch.setenv(variable, "router")
    logs.configure("auto", "info")
    logs.logger("there").info("hello")
    elsewhere, there = lines(said)
    assert elsewhere["event"] == there["message"] == "hello"

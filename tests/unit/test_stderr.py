"""RACES 46: whoever reads the log stops reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.stderr import WAITING_BYTES, Stderr, Writer

LINE = b"x" * 1023 + b"\n"
FILLS = 4 * WAITING_BYTES // len(LINE)
READ_SECONDS = 20.0


class Pipe:
    """A pipe of which the test decides when it is read."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def next(self, count: int) -> bytes:
        """The next ``count`` bytes, as soon as they are there."""
        taken = b""
        while len(taken) < count:
            taken += os.read(self.read, count - len(taken))
        return taken


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.read, made.write):
        os.close(descriptor)


def said(missing: int) -> str:
    return f"{missing} missing"


def lines(pipe: Pipe, count: int) -> list[bytes]:
    """So many lines, those included that are said to be missing."""
    whole: list[bytes] = []
    rest = b""
    while count > 0:
        *new, rest = (rest + os.read(pipe.read, 65536)).split(b"\n")
        count -= sum(int(line[:-8]) if line.endswith(b" missing") else 1 for line in new)
        whole += new
    return whole


def test_nobody_waits_for_who_reads_and_what_is_missing_is_told_where_it_is_missing(pipe: Pipe) -> None:
    """RACES 46: lines are dropped and counted, in order, and the writer goes on."""
    writer = Writer(pipe.write, said)
    for number in range(FILLS):
        writer.put(b"%06d %b" % (number, LINE))
    dropped = writer.dropped
    assert 0 < dropped < FILLS
    assert not writer.finish(0.01), "nobody has read"
    next_one = 0
    for line in lines(pipe, FILLS):
        if line.endswith(b" missing"):
            next_one += int(line[:-8])
        else:
            assert int(line[:6]) == next_one, "in order, and none twice"
            next_one += 1
    assert next_one == FILLS
    assert writer.finish(READ_SECONDS)
    writer.put(b"after\n")
    assert pipe.next(6) == b"after\n"
    assert writer.finish(READ_SECONDS)
    assert writer.dropped == dropped


def test_a_long_line_that_does_not_fit_is_not_passed_by_a_short_one(pipe: Pipe) -> None:
    writer = Writer(pipe.write, said)
    put = 0
    while not writer.dropped:
        writer.put(LINE)
        put += 1
    writer.put(b"short\n")
    read = lines(pipe, put + 1)
    assert read.count(b"short") == 0 or read.index(b"short") > read.index(b"1 missing")


def test_a_pipe_that_nobody_holds_any_more_takes_everything_in_silence() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = Writer(write, said)
    for _ in range(FILLS):
        writer.put(LINE)
    assert writer.finish(READ_SECONDS), "what cannot be told to anybody does not wait"
    os.close(write)


def test_a_terminal_that_another_made_non_blocking_gets_every_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.write, False)
    writer = Writer(pipe.write, said)
    for _ in range(200):
        writer.put(LINE)
    assert pipe.next(200 * len(LINE)) == LINE * 200
    assert writer.finish(READ_SECONDS)


def test_text_becomes_whole_lines(pipe: Pipe, tmp_path: Path) -> None:
    with (tmp_path / "given").open("w", encoding="ascii", errors="backslashreplace") as given:
        writer = Writer(pipe.write, said)
        stderr = Stderr(given, writer)
        print("a", "ä", 1, file=stderr)
        with pytest.raises(TypeError):
            stderr.write(b"no text")  # type: ignore[arg-type]  # that is the question
        stderr.write("no line yet")
        assert writer.finish(READ_SECONDS)
        assert pipe.next(9) == b"a \\xe4 1\n"
        stderr.write(", now\nand ")
        assert pipe.next(17) == b"no line yet, now\n"
        assert (stderr.encoding, stderr.isatty(), stderr.fileno()) == ("ascii", False, given.fileno())

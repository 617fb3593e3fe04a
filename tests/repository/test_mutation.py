"""Mutants follow the code that they change, and say so where they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.mutation import (
    Change,
    Misplaced,
    Mutant,
    Rewrite,
    after,
    before,
    drop,
    force,
    in_function,
    in_script,
    mutated,
    put,
    replace,
)

QUEUE = '''
"""A queue."""

LIMIT = 5


class Queue:
    async def acknowledge(self, user, ids):
        unique = list(dict.fromkeys(ids))
        if not unique or self.closed:
            return
        owed = await self._online.ack(user, unique)  # first
        await self._cold.delete(
            user,
            owed,
        )
        self._metrics.acknowledged(len(unique), at=LIMIT)


def ack(user):
    return user
'''
SCRIPT = """-- What is hot.
local QUEUE = KEYS[1]

local function place_of(lane, sequence)
  return lane == 0 and sequence or -sequence -- as 'it' says
end

local function share(whole)
  return lane == 0
end
return place_of(1, 2)
"""
QUERIES = """-- take: A worker takes some.
UPDATE route SET state = 4
    WHERE user = ? AND state = 0;

-- give: It gives them back.
UPDATE route SET state = 0 WHERE state = 0;
"""
ACKNOWLEDGE = "Queue.acknowledge"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in (("core/user_queue.py", QUEUE), ("lua/read.lua", SCRIPT), ("sql/hot.sql", QUERIES)):
        path = tmp_path / "router" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def text_of(root: Path, *changes: Change) -> str:
    (text,) = mutated(Mutant("a bug", *changes), root).values()
    return text


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (drop("_cold.delete(...)"), ["pass"]),
        (before("delete(...)", "x = 1"), ["x = 1", "await self._cold.delete(user, owed)"]),
        (after("delete(...)", "x = 1"), ["await self._cold.delete(user, owed)", "x = 1"]),
        (replace("ack(...)", "it[:0]"), ["owed = (await self._online.ack(user, unique))[:0]"]),
        (replace("list(...)", "..."), ["unique = dict.fromkeys(ids)"]),
        (replace("acknowledged(...)", "try:\n    it\nexcept OSError:\n    pass"), ["try:", "except OSError:"]),
        (replace("if ...: return", "await self._cold.delete(ids)"), ["await self._cold.delete(ids)"]),
        (force("closed", True), ["if not unique or True:"]),
        (force("unique", False), ["if not False or self.closed:"]),
    ],
    ids=str,
)
def test_a_function_is_changed_by_what_it_says(package: Path, change: Rewrite, lines: list[str]) -> None:
    text = text_of(package, in_function(ACKNOWLEDGE, change))
    assert [line for line in lines if line not in map(str.strip, text.splitlines())] == []


def test_a_function_may_move(package: Path) -> None:
    mutant = Mutant("a bug", in_function(ACKNOWLEDGE, drop("_cold.delete(...)")))
    before_ = mutated(mutant, package)
    moved = package / "moved"
    (moved / "router").mkdir(parents=True)
    (moved / "router" / "elsewhere.py").write_text(f"import asyncio\n{QUEUE}", encoding="utf-8")
    (text,) = mutated(mutant, moved).values()
    assert text.partition("LIMIT")[2] == next(iter(before_.values())).partition("LIMIT")[2]


def test_a_script_is_changed_whatever_its_white_space(package: Path) -> None:
    text = text_of(package, in_script("hot.take", replace("SET state=4 WHERE user", "SET state = 9 WHERE user")))
    assert text == QUERIES.replace("state = 4\n    WHERE", "state = 9 WHERE")
    text = text_of(package, in_script("place_of", replace("lane == 0", "true")))
    assert text == SCRIPT.replace("return lane == 0 and", "return true and")
    text = text_of(package, in_script("lua.read", replace("place_of(1,2)", "nil")))
    assert text == SCRIPT.replace("place_of(1, 2)", "nil")


def test_changes_of_one_file_add_up(package: Path) -> None:
    text = text_of(
        package,
        in_function(ACKNOWLEDGE, replace("LIMIT", "6"), drop("delete(...)")),
        in_function("core.ack", replace("user", "None")),
    )
    assert "at=6" in text
    assert "delete" not in text
    assert "return None" in text


def test_a_copy_gets_the_bug(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "router" / "sql").mkdir(parents=True)
    put(Mutant("a bug", in_script("take", replace("4", "9"))), package, copy)
    assert (copy / "router/sql/hot.sql").read_text(encoding="utf-8") == QUERIES.replace("4", "9")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (in_function("Queue.gone", drop("x")), "0 functions are called Queue.gone"),
        (in_function("backends.ack", drop("x")), "0 functions are called backends.ack"),
        (in_script("place", replace("x", "")), "0 scripts are called place"),
        (
            in_function(ACKNOWLEDGE, drop("settle(...)")),
            r"in router.core.user_queue.Queue.acknowledge, 'settle\(...\)' is",
        ),
        (in_function(ACKNOWLEDGE, replace("unique", "ids")), "'unique' is found 4 times, and it must be once"),
        (in_function(ACKNOWLEDGE, force("owed", True)), "the condition 'owed' is found 0 times"),
        (in_function(ACKNOWLEDGE, replace("ack(...)", "...")), r"has not one \.\.\., for one thing"),
        (in_function(ACKNOWLEDGE, replace("ack(...)", "list[Queued]()")), "nothing is called Queued"),
        (in_function(ACKNOWLEDGE, replace("ack(...)", "self._lost")), "nothing is called _lost"),
        (in_function(ACKNOWLEDGE, replace("LIMIT", "LIMIT")), "the change of 'LIMIT' changes nothing"),
        (in_script("share", replace("lane == 1", "")), "in router.lua.read.share, 'lane == 1' is found 0 times"),
        (in_script("lua.read", replace("lane == 0", "")), "'lane == 0' is found 2 times"),
    ],
    ids=lambda value: None if isinstance(value, Change) else value,
)
def test_what_does_not_apply_says_so(package: Path, change: Change, error: str) -> None:
    with pytest.raises(Misplaced, match=f"^a bug: .*{error}"):
        mutated(Mutant("a bug", change), package)


def test_names_that_are_several_say_which(package: Path) -> None:
    (package / "router" / "ack.py").write_text("def ack(): ...", encoding="utf-8")
    with pytest.raises(Misplaced, match=r"2 functions are called ack, .*, router.ack.ack, router.core.user_queue.ack"):
        mutated(Mutant("a bug", in_function("ack", drop("x"))), package)

"""The parts of ``docs/races.md`` that the tests say: which of them force which moment, and on which backend."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct

SUITES = {
    "Redis": ("queues", "lanes", "clocks", "ids", "answers", "finding", "bounds", "notices", "pipeline", "damage"),
    "cluster": ("queues", "lanes", "clocks", "ids", "answers", "finding", "bounds", "notices", "pipeline"),
    "Sentinel": (),
    "Firestore cold": ("queues", "lanes", "clocks", "ids", "answers", "finding", "bounds", "pipeline", "damage"),
    "Firestore online": ("queues", "lanes", "clocks", "ids", "answers", "finding", "bounds", "pipeline", "damage"),
    "Pub/Sub": ("ingress", "notices", "pipeline"),
}
"""Which files of ``tests/contract`` run on which backend (``tests/contract/test_*.py``); the embedded one runs all."""

TOGETHER = "all together"
OWN = {
    "acceptance/test_production.py": (TOGETHER,),
    "acceptance/test_production_secrets.py": ("Redis", "Firestore cold", "Firestore online", "Pub/Sub"),
    "firestore/test_cold.py": ("Firestore cold",),
    "firestore/test_names.py": ("Firestore cold", "Firestore online"),
    "firestore/test_online.py": ("Firestore online",),
    "firestore/test_outages.py": ("Firestore cold",),
    "firestore/test_outages.py::test_a_frozen_online_store_holds_mail_back_and_loses_nothing": ("Firestore online",),
    "firestore/test_outages.py::test_a_server_that_starts_again_empty": ("Firestore online",),
    "pubsub/": ("Pub/Sub",),
    "redis/": ("Redis",),
    "redis/test_cluster.py": ("cluster",),
    "redis/test_failover.py": ("Redis", "cluster", "Sentinel"),
    "redis/test_faults.py::test_a_call_that_was_given_up_leaves_no_answer_to_the_next": ("Redis", "cluster"),
    "redis/test_faults.py::test_a_cancelled_call_waits_for_no_time_out": ("Redis", "cluster"),
    "redis/test_faults.py::test_closing_ends_though_the_server_is_frozen": ("Redis", "Sentinel"),
    "redis/test_keys.py::test_a_users_keys_share_a_slot_and_are_nobody_elses": ("Redis", "cluster"),
    "redis/test_keys.py::test_strange_names_are_served_by_a_cluster": ("cluster",),
    "redis/test_outage.py::test_a_failover_loses_no_mail": ("Sentinel",),
}
"""What a test of one backend runs on, by how its name begins; the longest counts. Others run on the embedded one."""

UNFORCED = "n"
REASONS = {
    19: dict.fromkeys(["embedded", *SUITES], "e"),
    34: {"cluster": "s"},
    36: {"cluster": "s", "Firestore online": "s"},
    38: dict.fromkeys(["embedded", *SUITES], "e"),
    40: {"cluster": "s"},
    43: dict.fromkeys(["embedded", "Firestore cold", "Firestore online", "Pub/Sub"], "u"),
    44: dict.fromkeys(["embedded", "Firestore cold", "Firestore online", "Pub/Sub"], "u"),
    45: {"Pub/Sub": "u"},
    46: dict.fromkeys(["embedded", *SUITES], "e"),
    47: dict.fromkeys(SUITES, "u"),
    50: dict.fromkeys(["embedded", *SUITES], "e"),
}
"""Why a race has no test on a backend, by letters that the page explains; ``n``, not forced, where nothing is said."""
_USUAL_REASONS = {"Sentinel": "s", "Pub/Sub": "r"}

_SECTION = re.compile(r"^### RACES (\d+):.*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_TESTS = "Tests:"
"""Begins a section's list of tests; what stands behind it is written anew."""


class Case(Struct, frozen=True):
    """A test, or a file of tests as a whole, which has no ``name``."""

    file: str
    name: str = ""

    @property
    def path(self) -> str:
        """As pytest takes it, below ``tests/``."""
        return f"{self.file}::{self.name}" if self.name else self.file

    @property
    def backends(self) -> tuple[str, ...]:
        """Those whose own test it is; empty for one of the core, the edge, the embedded backend or the contract."""
        return OWN[max(begins, key=len)] if (begins := [each for each in OWN if self.path.startswith(each)]) else ()

    def runs_on(self, backend: str) -> bool:
        """As a part of the contract."""
        return self.file in {f"contract/{suite}.py" for suite in SUITES[backend]}


@cache
def tests_of_races(tests: Path) -> dict[int, list[Case]]:
    """The tests whose docstring begins with ``RACES`` and a number; a file that does so stands for all of its tests."""
    found: dict[int, list[Case]] = defaultdict(list)
    for path in sorted(tests.rglob("*.py")):
        module, file = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(tests).as_posix()
        whole = numbers(module)
        for number in whole:
            found[number].append(Case(file))
        for node in ast.walk(module):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for number in numbers(node) - whole:
                    found[number].append(Case(file, node.name))
    return found


def numbers(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """Of the races that its docstring begins with."""
    told = re.match(r"RACES ([\d, ]+)", ast.get_docstring(node) or "")
    return {int(number) for number in re.findall(r"\d+", told[1])} if told else set()


def with_tests(page: str, found: dict[int, list[Case]]) -> str:
    """``page`` with the tests of each section at its end."""

    def renewed(section: re.Match[str]) -> str:
        prose, _, _ = section[0].partition(f"\n{_TESTS}\n")
        tests = found.get(int(section[1]), [])
        return "\n".join([prose.rstrip(), "", *([_TESTS, "", *_bullets(tests), ""] if tests else []), ""])

    return _SECTION.sub(renewed, page)


def _bullets(tests: list[Case]) -> Iterator[str]:
    columns = ["", *SUITES, TOGETHER]
    for test in sorted(tests, key=lambda test: (columns.index(test.backends[0]) if test.backends else 0, test.path)):
        yield f"* {', '.join(test.backends)}{': ' if test.backends else ''}`{test.path}`"


def matrix(page: str, found: dict[int, list[Case]]) -> str:
    """A row for each section: on which backends it is forced."""
    head = ["no.", "embedded", *SUITES]
    rows = [head, ["---"] * len(head)]
    rows += [[str(number), *_cells(number, found.get(number, []))] for number in sections(page)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sections(page: str) -> list[int]:
    """The numbers of the races that have a section."""
    return [int(section[1]) for section in _SECTION.finditer(page)]


def _cells(number: int, tests: list[Case]) -> Iterator[str]:
    reasons = _USUAL_REASONS | REASONS.get(number, {})
    embedded = any(not test.backends for test in tests)
    yield reasons.get("embedded", "yes" if embedded else UNFORCED)
    for backend in SUITES:
        kinds = ["contract"] * any(test.runs_on(backend) for test in tests)
        kinds += ["own"] * any(backend in test.backends for test in tests)
        yield ", ".join(kinds) or reasons.get(backend, UNFORCED)

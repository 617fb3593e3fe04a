"""The files that are written from the code, as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report
from router.backends.firestore import indexes
from router.cli.config import toml_value
from router.config import Config, known_keys
from router.config.sources import expected, variable
from router.conformance.moments import MOMENTS
from router.web import asyncapi as sockets
from router.web import openapi as requests
from tests.chaos import report as chaos
from tools import races
from tools.cli_reference import cli_reference
from tools.life import lifecycle
from tools.typescript import shapes

MARK = "<!-- The table is written by `make docs`. -->"
PRODUCTION_MARK = "<!-- The table of production is written by `make docs`. -->"
CHAOS_MARK = "<!-- The table of chaos is written by `make docs`. -->"
END_MARK = "<!-- End of the table. -->"
EXAMPLE_HEAD = """\
# The configuration of the router: every key, with its default.
#
# Nothing here needs to be set for `router serve` on one machine. To use this file: copy it, remove the # before what
# you change, and run `router --config FILE serve`, or set ROUTER_CONFIG=FILE. Each key is also an environment
# variable, which wins over the file: ROUTER_<SECTION>__<KEY>. `router config check` finds mistakes.
"""


def example_config(root: Path) -> str:
    """``config.example.toml``: loading it gives the defaults."""
    del root
    sections = []
    for section, keys in known_keys().items():
        lines = [f"[{section}]"]
        for key, schema in keys.items():
            unset = schema.get("default") is None
            value = toml_value(schema["examples"][0] if unset else schema["default"])
            takes = "" if expected(schema) in ("a string", "a path") else f" Takes {expected(schema)}."
            note = ["# Unset by default; for example:"] if unset else []
            lines += ["", *_comment(f"{schema['description']}{takes}"), *note, f"#{key} = {value}"]
        sections.append("\n".join(lines))
    return "\n\n".join([EXAMPLE_HEAD.rstrip(), *sections]) + "\n"


def _comment(text: str) -> list[str]:
    lines, current = [], "#"
    for word in text.split():
        if len(current) + len(word) >= 118:
            lines.append(current)
            current = "#"
        current += f" {word}"
    return [*lines, current]


def configuration_docs(root: Path) -> str:
    """``docs/configuration.md`` with its table of keys."""
    return _with_table((root / "docs" / "configuration.md").read_text(encoding="utf-8"), _key_table())


def specification(root: Path) -> str:
    """``docs/specification.md`` with its table of keys."""
    return _with_table((root / "docs" / "specification.md").read_text(encoding="utf-8"), _default_table())


def benchmark_docs(root: Path) -> str:
    """``docs/benchmarks.md`` with the committed runs."""
    text, results = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8"), root / "benchmarks" / "results"
    text = _with_table(text, report.markdown(report.load(results / report.RESULTS.name)))
    production = report.markdown(report.load(results / report.PRODUCTION_RESULTS.name))
    return _with_table(text, production, PRODUCTION_MARK)


def proof(root: Path) -> str:
    """``docs/proof/chaos.md`` with the committed runs."""
    results = root / "docs" / "chaos"
    runs = [chaos.load(results / f"{topology}.json") for topology in ("embedded", "production")]
    return _with_table(
        (root / "docs" / "proof" / "chaos.md").read_text(encoding="utf-8"), chaos.markdown(runs), CHAOS_MARK
    )


def lifecycle_docs(root: Path) -> str:
    """``docs/lifecycle.md`` with its diagram and its table."""
    return _with_table((root / "docs" / "lifecycle.md").read_text(encoding="utf-8"), lifecycle())


def races_docs(root: Path) -> str:
    """``docs/races.md`` with the tests of each race, and with its table of backends."""
    page, found = (root / "docs" / "races.md").read_text(encoding="utf-8"), races.tests_of_races(root / "tests")
    return _with_table(races.with_tests(page, found), races.matrix(page, found))


def conformance_docs(root: Path) -> str:
    """``docs/conformance.md`` with its table of moments."""
    rows = [f"| `{one.name}` | {one.role} | {one.story} | {one.expected} |" for one in MOMENTS]
    head = ["| moment | the client's role | what happens | what is expected |", "|---|---|---|---|"]
    page = (root / "docs" / "conformance.md").read_text(encoding="utf-8")
    return _with_table(page, "\n".join([*head, *rows, ""]))


def _with_table(text: str, table: str, mark: str = MARK) -> str:
    before, _, rest = text.partition(mark)
    _, _, after = rest.partition(END_MARK)
    return f"{before}{mark}\n\n{table}\n{END_MARK}{after}"


def _key_table() -> str:
    lines = []
    for section, keys in known_keys().items():
        lines += [f"### `[{section}]`", "", "| key | default | takes | |", "|---|---|---|---|"]
        for key, schema in keys.items():
            cells = [
                f"`{key}`<br>`{variable(section, key)}`",
                _default(schema, unset=""),
                expected(schema),
                schema["description"],
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _default_table() -> str:
    """Each section's keys with their defaults, in one row."""
    lines = ["| section | keys (defaults) |", "|---|---|"]
    for section, keys in known_keys().items():
        cells = [f"`{key}` ({_default(schema)})" for key, schema in keys.items()]
        lines.append(f"| `{section}` | {', '.join(cells)} |")
    return "\n".join([*lines, ""])


def _default(schema: dict[str, Any], unset: str = "unset") -> str:
    return unset if schema.get("default") is None else f"`{toml_value(schema['default'])}`"


def openapi(root: Path) -> str:
    """``docs/openapi.json``."""
    del root
    return _json(requests.document())


def asyncapi(root: Path) -> str:
    """``docs/asyncapi.json``."""
    del root
    return _json(sockets.document())


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def firestore_indexes(root: Path) -> str:
    """``examples/firestore/firestore.indexes.json``, for the default names."""
    del root
    config = Config()
    fields = [*indexes.cold_fields(config.cold.collection), *indexes.online_fields(config.online.collection)]
    return json.dumps(indexes.document(fields), indent=2) + "\n"


GENERATED: dict[str, Callable[[Path], str]] = {
    "config.example.toml": example_config,
    "clients/typescript/src/api.ts": shapes,
    "docs/configuration.md": configuration_docs,
    "docs/specification.md": specification,
    "docs/benchmarks.md": benchmark_docs,
    "docs/cli.md": cli_reference,
    "docs/conformance.md": conformance_docs,
    "docs/lifecycle.md": lifecycle_docs,
    "docs/proof/chaos.md": proof,
    "docs/races.md": races_docs,
    "docs/asyncapi.json": asyncapi,
    "docs/openapi.json": openapi,
    "examples/firestore/firestore.indexes.json": firestore_indexes,
}
"""File -> what it must hold."""

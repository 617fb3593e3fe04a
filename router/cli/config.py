"""``router config check`` and ``router config show``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from pydantic import SecretStr

from router.cli.app import SETTINGS
from router.cli.common import config_file
from router.cli.exits import Code
from router.cli.output import Table, json_document, line, show
from router.config import Config, InvalidConfig, Loaded, check_api, load_with_origins
from router.config.go_names import unread
from router.config.sources import Problem, masked_url, variable
from router.errors import DataDirError
from router.factory import check_machine

app = typer.Typer(
    name="config",
    help=(
        "Check and show the configuration.\n\nExample:\n\n"
        "  router --config router.toml config check\n  router config show --section server"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
)
SectionName = StrEnum("SectionName", list(Config.model_fields))  # type: ignore[misc]  # the names are the model's


class Check(Struct, frozen=True):
    """``config check --json``."""

    ok: bool
    file: str | None
    problems: list[Problem]
    warnings: list[Problem] = []
    """Probable mistakes that do not keep a service from starting."""


class Value(Struct, frozen=True):
    """One key of ``config show --json``."""

    value: Any
    """Secrets are masked."""
    origin: str
    """``default``, the file, or the environment variable."""


@app.command(context_settings=SETTINGS)
def check(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False
) -> None:
    """Check the configuration and list all problems.

    Unknown keys and variables are errors; the closest known name is suggested. Variables of go-routing-service, which
    the router does not read, are warnings that name ours. Connects to nothing. Exits with 78 if there is a problem.

    Example:

      router --config router.toml config check
    """
    try:
        loaded = load_with_origins(config_file(ctx))
        check_api(loaded.config, loaded.file)
        _check_machine(loaded)
    except InvalidConfig as error:
        if not as_json:
            raise
        json_document(Check(ok=False, file=str(error.file) if error.file else None, problems=error.problems))
        raise typer.Exit(Code.CONFIG) from None
    warnings = [*loaded.warnings, *_unread(loaded)]
    if as_json:
        json_document(Check(ok=True, file=_file(loaded), problems=[], warnings=warnings))
    else:
        for warning in warnings:
            line(f"warning: {warning}")
        line(f"fine: {_file(loaded) or 'no file'}; keys that are set: {', '.join(loaded.origins) or 'none'}")


def _unread(loaded: Loaded) -> Iterator[Problem]:
    """The variables of go-routing-service that are set, while ours are not."""
    for name, key in unread(os.environ, loaded.origins):
        ours = variable(*key.split("."))
        url = ", as redis://HOST:PORT, and ROUTER_ONLINE__KIND to redis" if key == "online.url" else ""
        yield Problem(
            name, name, f"is ignored: the router does not read variables of go-routing-service; set {ours}{url}"
        )


def _check_machine(loaded: Loaded) -> None:
    """Whether what the configuration asks for can run on this machine; raises ``InvalidConfig``."""
    try:
        check_machine(loaded.config)
    except DataDirError as error:
        raise InvalidConfig([Problem("", "this machine", str(error))], loaded.file) from error


@app.command("show", context_settings=SETTINGS)
def show_config(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the values as a TOML file.")] = False,
    section: Annotated[SectionName | None, typer.Option(metavar="NAME", help="Only this section.")] = None,
) -> None:
    """Show the values in effect and where each comes from.

    The environment overrides the file, and the file overrides the defaults. Secrets are masked. PORT is left out,
    since its meaning depends on the service that runs.

    Example:

      ROUTER_SERVER__API_PORT=9000 router config show --section server
    """
    if as_json and as_toml:
        raise typer.BadParameter("choose --json or --toml", param_hint="--toml")
    loaded = load_with_origins(config_file(ctx))
    sections = [section.value] if section else list(Config.model_fields)
    if as_toml:
        line("\n\n".join(_toml(loaded, name) for name in sections))
    elif as_json:
        keys = {name: dict(_values(loaded, name)) for name in sections}
        json_document({"file": _file(loaded), "sections": keys})
    else:
        rows = [[f"{n}.{k}", _words(v.value), v.origin] for n in sections for k, v in _values(loaded, n)]
        show([Table("Configuration", ["key", "value", "from"], rows)])


def _values(loaded: Loaded, section: str) -> Iterator[tuple[str, Value]]:
    for key, value in getattr(loaded.config, section):
        yield key, Value(shown(value), loaded.origins.get(f"{section}.{key}", "default"))


def shown(value: object) -> object:
    """``value`` for print: a secret masked, and what may be one in an URL."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return masked_url(text) if "://" in text else "***"
    if isinstance(value, str) and "://" in value:
        return masked_url(value)
    return str(value) if isinstance(value, Path) else value


def _words(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else toml_value(value)


def _toml(loaded: Loaded, section: str) -> str:
    lines = [f"[{section}]"]
    for key, value in getattr(loaded.config, section):
        if value is not None:
            # A masked value must not be taken for the real one.
            masked = shown(value) != (str(value) if isinstance(value, Path) else value)
            lines.append(f"{'# ' if masked else ''}{key} = {toml_value(shown(value))}")
    return "\n".join(lines)


def toml_value(value: object) -> str:
    """``value`` as TOML writes it in ASCII, which every standard output can hold, and whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", json.dumps(value, ensure_ascii=False))


def _file(loaded: Loaded) -> str | None:
    return str(loaded.file) if loaded.file else None

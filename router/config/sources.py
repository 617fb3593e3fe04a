"""Where configuration values come from, and what is wrong with them in plain words. Knows no pydantic."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from router.config import go_names
from router.config.paths import expanded

Schema = Mapping[str, Any]
"""The JSON schema of one key."""
Keys = Mapping[str, Mapping[str, Schema]]
"""Section -> key -> schema: all that exists."""

PREFIX = "ROUTER_"
FILE_VARIABLE = "ROUTER_CONFIG"
OTHER_VARIABLES = (FILE_VARIABLE, "ROUTER_DEBUG", "ROUTER_TOKEN", "ROUTER_URL")
"""Variables of the command line that are not configuration keys."""
TEST_PREFIX = "ROUTER_TEST_"
PROJECT_VARIABLE = "GOOGLE_CLOUD_PROJECT"
CLOSE, VERY_CLOSE = 0.6, 0.85
"""How alike a variable must be to one of ours that we ask whether it was meant: one of a section that we have, and any
other, which may well be another program's."""
_SERVICE_LINK = re.compile(r"ROUTER(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_[A-Z0-9_]+)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class Problem(Struct, frozen=True):
    """One thing that is wrong with the configuration."""

    key: str
    """``section.key``, or the section; empty if the problem concerns the whole file."""
    source: str
    """The file or the environment variable; empty if values from several places contradict each other."""
    message: str
    """What is wrong and how to fix it, in one line, without secrets."""

    def __str__(self) -> str:
        if not self.source or self.source == self.key:
            return f"{self.key or self.source}: {self.message}"
        return f"{self.key} ({self.source}): {self.message}" if self.key else f"{self.source}: {self.message}"


class Sources(Struct):
    """The raw values by section and key, and where each came from."""

    file: Path | None = None
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """``section.key`` -> file or variable; a key that is missing here has its default."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    """Probable mistakes that do not keep a service from starting."""

    def put(self, section: str, key: str, value: object, origin: str) -> None:
        self.values.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = origin

    def refuse(self, key: str, source: str, message: str) -> None:
        self.problems.append(Problem(key, source, message))


def read_sources(keys: Keys, path: Path | None, environ: Mapping[str, str]) -> Sources:
    """The file (``path``, else the one that ``ROUTER_CONFIG`` names), overlaid by the environment."""
    sources = Sources()
    named = environ.get(FILE_VARIABLE)
    if path is not None:
        _read_file(sources, keys, path, str(path))
    elif named:
        _read_file(sources, keys, expanded(Path(named)), f"{FILE_VARIABLE}={named}")
    _read_environment(sources, keys, environ)
    return sources


def _read_file(sources: Sources, keys: Keys, path: Path, named: str) -> None:
    sources.file = path
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sources.refuse("", named, "there is no such file; create it from config.example.toml, or name another")
    except OSError as error:
        sources.refuse("", named, f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError:
        sources.refuse("", named, "is not UTF-8; a TOML file must be")
    except RecursionError:
        sources.refuse("", named, "cannot be read as TOML: something in it is nested too deeply")
    except ValueError as error:  # of TOML, or of a number without end
        hint = "; write the file in TOML, as config.example.toml is" if path.suffix in (".yaml", ".yml") else ""
        sources.refuse("", named, f"is not valid TOML: {error}{hint}")
    else:
        for section, table in tables.items():
            _read_table(sources, keys, section, table, str(path))


def _read_table(sources: Sources, keys: Keys, section: str, table: object, origin: str) -> None:
    if section not in keys:
        message = f"there is no such {'section' if isinstance(table, dict) else 'key outside a section'}"
        sources.refuse(section, origin, f"{message}; {_guess(section, list(keys), _all_keys(keys))}")
    elif not isinstance(table, dict):
        sources.refuse(section, origin, f"is {kind_of(table)}, but must be a section: write [{section}]")
    else:
        for key, value in table.items():
            name = f"{section}.{key}"
            if key not in keys[section]:
                found = _guess(key, list(keys[section]), _all_keys(keys))
                sources.refuse(name, origin, f"there is no such key; {found}")
            elif isinstance(value, bool) and not is_switch(keys[section][key]):  # true would pass for 1
                sources.refuse(name, origin, f"is {kind_of(value)}, but must be {expected(keys[section][key])}")
            else:
                sources.put(section, key, value, origin)


def _read_environment(sources: Sources, keys: Keys, environ: Mapping[str, str]) -> None:
    variables = {variable(section, key): (section, key) for section in keys for key in keys[section]}
    for name in sorted(environ):
        value = environ[name]
        if name in variables:
            section, key = variables[name]
            if value:  # Compose files and the like pass unset values on as empty ones.
                _put_text(sources, section, key, value, name, keys[section][key])
        elif name.startswith(PREFIX) and not _is_foreign(name, value):
            guess = _guess_variable(name, keys)
            if "__" in name:
                sources.refuse(name, name, f"there is no such variable; {guess}")
            else:
                sources.warnings.append(
                    Problem(name, name, f"is ignored, since the router has no such variable; {guess}")
                )
    project = environ.get(PROJECT_VARIABLE)
    if project and "project" in keys.get("google", {}) and "google.project" not in sources.origins:
        sources.put("google", "project", project, PROJECT_VARIABLE)


def _put_text(sources: Sources, section: str, key: str, text: str, name: str, schema: Schema) -> None:
    value: object = text
    if "array" in _types(schema):
        try:
            value = as_list(text)
        except ValueError as error:
            sources.refuse(f"{section}.{key}", name, f'is not a list ({error}); write ["a", "b"] or a,b')
            return
    sources.put(section, key, value, name)


def as_list(text: str) -> list[Any]:
    """A JSON array, or texts with commas between; raises ``ValueError``."""
    if text.lstrip().startswith("["):
        try:
            value: list[Any] = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        return value
    return [item.strip() for item in text.split(",") if item.strip()]


def _is_foreign(name: str, value: str) -> bool:
    # Kubernetes describes each Service in the variables of every pod: one that is named "router", or "router-api",
    # gives ROUTER_SERVICE_HOST, ROUTER_PORT=tcp://… and so on.
    return (
        name in OTHER_VARIABLES
        or name.startswith(TEST_PREFIX)
        or _SERVICE_LINK.fullmatch(name) is not None
        or (name.endswith("_PORT") and _SERVICE_URL.match(value) is not None)
    )


def variable(section: str, key: str) -> str:
    """The environment variable of a key."""
    return f"{PREFIX}{section}__{key}".upper()


def _all_keys(keys: Keys) -> list[str]:
    return [f"{section}.{key}" for section in keys for key in keys[section]]


def _guess(name: str, near: Sequence[str], everywhere: Sequence[str]) -> str:
    """A did-you-mean, and what exists where the mistake was made."""
    wanted = name.rpartition(".")[2]
    elsewhere = [other for other in everywhere if other.rpartition(".")[2] == wanted]
    if not elsewhere and (known := go_names.renamed(name)):
        return known
    guesses = elsewhere or difflib.get_close_matches(name, near, n=1)
    return _did_you_mean(guesses, f"there are {', '.join(near)}")


def _guess_variable(name: str, keys: Keys) -> str:
    given = name.removeprefix(PREFIX)
    section = given.partition("__")[0].lower()
    if renamed := go_names.VARIABLES.get(given.rpartition("__")[2]):
        return f"did you mean {variable(*renamed.split('.'))}?"
    known = [variable(section, key) for section in keys for key in keys[section]]
    near = [variable(section, key) for key in keys.get(section, ())]
    form = f"write {PREFIX}<SECTION>__<KEY>, where the sections are {', '.join(keys)}"
    in_section = any(name.startswith(f"{PREFIX}{known_section.upper()}_") for known_section in keys)
    cutoff = CLOSE if in_section else VERY_CLOSE
    guesses = difflib.get_close_matches(name, [*known, *OTHER_VARIABLES], n=1, cutoff=cutoff)
    return _did_you_mean(guesses, f"there are {', '.join(near)}" if near else form)


def _did_you_mean(guesses: Sequence[str], otherwise: str) -> str:
    return f"did you mean {guesses[0]}? ({otherwise})" if guesses else otherwise


def _types(schema: Schema) -> set[str]:
    return {option["type"] for option in schema.get("anyOf", [schema]) if "type" in option}


def expected(schema: Schema) -> str:
    """What a key takes, in words."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    return " or ".join(_expected_one(option) for option in options)


def _expected_one(schema: Schema) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " or ".join(", ".join(schema["enum"]).rsplit(", ", 1))
    match schema.get("type"):
        case "integer":
            return f"a whole number{_bounds(schema)}"
        case "number":
            return f"a number{_bounds(schema)}"
        case "array":
            return "a list of strings" + (f" ({schema['minItems']} or more)" if "minItems" in schema else "")
        case _:
            names = {"boolean": kind_of(True), "path": "a path"}
            return names.get(str(schema.get("format") or schema.get("type")), "a string")


def _bounds(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    if "minimum" in schema:
        return f" of {schema['minimum']:g} or more"
    return f" above {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else ""


def is_switch(schema: Schema) -> bool:
    return schema.get("type") == "boolean"


def is_secret(schema: Schema) -> bool:
    return any(option.get("writeOnly") for option in schema.get("anyOf", [schema]))


def kind_of(value: object) -> str:
    """The value's type, in words."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def masked_url(text: str) -> str:
    """``text`` without what can be a secret in an URL: all before the last ``@``, and all after a ``?`` or ``#``."""
    found = re.match(r"(?P<scheme>.*?://)?(?P<place>[^?#]*)(?P<sign>[?#]?)(?P<query>.*)", text, re.DOTALL)
    assert found is not None, "each part may be empty"
    scheme, place, sign, query = found["scheme"] or "", *found.group("place", "sign", "query")
    if scheme and "@" in query:  # of a user or of an option: one of the two is cut in the middle
        return f"{scheme}***"
    if scheme and "@" in place:
        place = f"***@{place.rpartition('@')[2]}"
    return f"{scheme}{place}{sign}{'***' if sign else ''}"


def shown(value: object, schema: Schema) -> str:
    """The value's type, and the value itself where it is short and no secret."""
    if is_secret(schema) or not isinstance(value, str | int | float):
        return kind_of(value)
    text = masked_url(str(value))
    return f"{kind_of(value)} ({text!r})" if len(text) <= 60 else kind_of(value)

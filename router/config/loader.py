"""Loading the configuration: defaults < file < environment, refused in plain words, all of it at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import ValidationError

from router.config.combinations import cautions, contradictions, emulators, secretless, untraced
from router.config.sections import Config, Service
from router.config.sources import Problem, Sources, expected, read_sources, shown
from router.errors import ConfigError


class InvalidConfig(ConfigError):
    """The configuration has problems; ``problems`` holds each, the message all of them."""

    def __init__(self, problems: list[Problem], file: Path | None = None) -> None:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        super().__init__("\n  ".join([f"the configuration has {count}:", *map(str, problems)]))
        self.problems = problems
        self.file = file


class Loaded(Struct, frozen=True):
    """A configuration, and where its values come from."""

    config: Config
    file: Path | None
    origins: Mapping[str, str]
    """``section.key`` -> file or environment variable; a key that is missing here has its default."""
    warnings: list[Problem]
    """Probable mistakes that do not keep a service from starting."""


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration from defaults < the file < the environment; raises ``InvalidConfig``.

    The file is ``path``, or the one that ``ROUTER_CONFIG`` names, or none.
    """
    return load_with_origins(path, environ).config


def load_with_origins(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Like ``load``, and says where each value comes from."""
    environ = os.environ if environ is None else environ
    sources = read_sources(known_keys(), path, environ)
    config = _validated(sources)
    if config is not None:
        sources.problems.extend(emulators(config, environ))
    if config is None or sources.problems:
        raise InvalidConfig(sources.problems, sources.file)
    warnings = [*sources.warnings, *cautions(config), *untraced(environ)]
    return Loaded(config, sources.file, sources.origins, warnings)


def check_api(config: Config, file: Path | None = None) -> None:
    """Raise ``InvalidConfig`` where ``config`` lacks what the API needs, and no other service."""
    if problems := secretless(config):
        raise InvalidConfig(problems, file)


@cache
def known_keys() -> dict[str, dict[str, dict[str, Any]]]:
    """Section -> key -> its JSON schema."""
    schema = Config.model_json_schema()
    return {name: schema["$defs"][name.title()]["properties"] for name in Config.model_fields}


def _validated(sources: Sources) -> Config | None:
    keys = known_keys()
    try:
        config = Config.model_validate(sources.values)
    except ValidationError as error:
        places = dict.fromkeys((str(found["loc"][0]), str(found["loc"][1])) for found in error.errors())
        for section, key in places:
            name, value, schema = f"{section}.{key}", sources.values[section][key], keys[section][key]
            message = f"is {shown(value, schema)}, but must be {expected(schema)}"
            sources.refuse(name, sources.origins[name], message)
        return None
    sources.problems.extend(contradictions(config))
    return config


ADMIN_PORTS: Mapping[Service, int] = {"serve-ws": 8085, "process": 8086}
"""Where nobody has set one: one of each service runs on one host."""


def with_ports(config: Config, service: Service, environ: Mapping[str, str] | None = None) -> Config:
    """``config`` with ``PORT``, where it is set, as the one public port of ``service``.

    ``serve`` gets it as both of its ports, which makes them one listener. Where no admin port is set, each service has
    one of its own.

    Raises ``InvalidConfig``.
    """
    if service in ADMIN_PORTS and "admin_port" not in config.server.model_fields_set:
        config = _with(config, admin_port=ADMIN_PORTS[service])
    text = (os.environ if environ is None else environ).get("PORT")
    if not text:
        return config
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        schema = known_keys()["server"]["api_port"]
        message = f"is {shown(text, schema)}, but must be {expected(schema)}"
        raise InvalidConfig([Problem("PORT", "PORT", message)])
    port = int(text)
    if service == "process":
        return config.model_copy(update={"process": config.process.model_copy(update={"port": port})})
    names = {"serve": ("api_port", "ws_port"), "serve-api": ("api_port",), "serve-ws": ("ws_port",)}[service]
    return _with(config, **dict.fromkeys(names, port))


def _with(config: Config, **server: int) -> Config:
    return config.model_copy(update={"server": config.server.model_copy(update=server)})

"""The typed configuration: its sections, the rules between them, where values come from, and loading it all."""

from router.config.loader import InvalidConfig, Loaded, check_api, known_keys, load, load_with_origins, with_ports
from router.config.sections import (
    Auth,
    Cold,
    Config,
    Embedded,
    Google,
    Ingress,
    Limits,
    Online,
    Process,
    Push,
    Server,
    Service,
    address,
)

__all__ = [
    "Auth",
    "Cold",
    "Config",
    "Embedded",
    "Google",
    "Ingress",
    "InvalidConfig",
    "Limits",
    "Loaded",
    "Online",
    "Process",
    "Push",
    "Server",
    "Service",
    "address",
    "check_api",
    "known_keys",
    "load",
    "load_with_origins",
    "with_ports",
]

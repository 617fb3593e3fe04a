"""Addresses of Google's services and of their emulators. Knows no library of Google: rules and ``router doctor`` read
it too."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

PUBSUB_EMULATOR, FIRESTORE_EMULATOR = "PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def emulator(text: str) -> str:
    """``host:port`` of an emulator. ``http://`` before it and a ``/`` behind it are left out: some tools write them.

    Raises ``ValueError``; its message goes on after the name of the variable.
    """
    return _address(text, scheme="http", default_port=None, example="localhost:8085 or [::1]:8085")


def service(text: str) -> str:
    """``host:port`` of a service, which has 443 for its port where none is given; raises ``ValueError`` likewise."""
    return _address(text, scheme="https", default_port=443, example="europe-west1-pubsub.googleapis.com:443")


def _address(text: str, *, scheme: str, default_port: int | None, example: str) -> str:
    try:
        parts = urlsplit(text.strip() if "://" in text else f"{scheme}://{text.strip()}")
        host, port = parts.hostname or "", parts.port or default_port
        fits = parts.scheme == scheme and port is not None and parts.path in ("", "/")
        if fits and not (parts.query or parts.fragment or "@" in parts.netloc):
            if ":" in host:
                return f"[{IPv6Address(host)}]:{port}"
            if _NAME.fullmatch(host):
                return f"{host}:{port}"
    except ValueError:
        pass  # a port that is none, brackets without an address
    optional = "" if default_port is None else " (the port is optional)"
    raise ValueError(f"is {text!r}, but must be a host and a port, such as {example}{optional}")

"""Addresses of Google's services and of emulators: in every form that people and tools write, or refused by name."""

from __future__ import annotations

import pytest

from router.config import InvalidConfig, endpoints, load

GOOGLE = {"GOOGLE_CLOUD_PROJECT": "p", "ROUTER_COLD__KIND": "firestore"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8085", "localhost:8085"),
        ("127.0.0.1:8085", "127.0.0.1:8085"),
        ("http://localhost:8085", "localhost:8085"),
        ("HTTP://localhost:8085/", "localhost:8085"),
        ("localhost:8085/", "localhost:8085"),
        (" pubsub_emulator:8085 ", "pubsub_emulator:8085"),
        ("[::1]:8085", "[::1]:8085"),
        ("http://[::1]:8085", "[::1]:8085"),
    ],
)
def test_an_emulator(text: str, address: str) -> None:
    assert endpoints.emulator(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "localhost", "8085", ":8085", "::1:8085", "[localhost]:8085", "localhost:none", "localhost:0", "a:70000",
        "https://localhost:8085", "grpc://localhost:8085", "localhost:8085/v1", "me@localhost:8085", "local host:8085",
        "localhost:8085?x", "true",
    ],
)  # fmt: skip
def test_no_emulator(text: str) -> None:
    with pytest.raises(ValueError, match="must be a host and a port"):
        endpoints.emulator(text)


def test_a_service_may_leave_out_its_port() -> None:
    assert endpoints.service("europe-west1-pubsub.googleapis.com") == "europe-west1-pubsub.googleapis.com:443"
    assert endpoints.service("https://nam5-firestore.googleapis.com/") == "nam5-firestore.googleapis.com:443"
    with pytest.raises(ValueError, match="must be a host and a port"):
        endpoints.service("http://pubsub.googleapis.com")


def test_a_variable_that_is_no_address_is_refused_where_it_is_used() -> None:
    with pytest.raises(InvalidConfig, match="FIRESTORE_EMULATOR_HOST: is 'localhost', but must be a host and a port"):
        load(environ=GOOGLE | {"FIRESTORE_EMULATOR_HOST": "localhost"})
    load(environ=GOOGLE | {"FIRESTORE_EMULATOR_HOST": "http://localhost:8086/"})
    load(environ=GOOGLE | {"FIRESTORE_EMULATOR_HOST": ""})
    load(environ=GOOGLE | {"PUBSUB_EMULATOR_HOST": "nonsense"})  # nothing here goes over Pub/Sub
    load(environ={"FIRESTORE_EMULATOR_HOST": "nonsense"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PUBSUB_ENDPOINT", "pubsub.googleapis/v1"),
        ("FIRESTORE_ENDPOINT", "http://x"),
        ("FIRESTORE_DATABASE", "Mail"),
    ],
)
def test_what_google_never_takes_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidConfig, match=f"google.{key.lower()}"):
        load(environ=GOOGLE | {f"ROUTER_GOOGLE__{key}": value})

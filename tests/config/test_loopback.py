"""What only this machine reaches."""

from __future__ import annotations

import pytest

from router.config.combinations import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "127.255.255.254", "::1", "0:0::1"])
def test_is_loopback_knows_the_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "0.0.0.0", "::", "10.0.0.1", "::2", "localhost.example.com", "127.0.0.1.nip.io"]
)
def test_is_loopback_denies_other_hosts(host: str | None) -> None:
    assert not is_loopback(host)

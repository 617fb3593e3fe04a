"""What an ``online.url`` says, and what is refused in which words."""

from __future__ import annotations

import pytest

from router.backends.redis import address
from router.backends.redis.client import Client
from router.backends.redis.scripts import Scripts
from router.config.redis_url import OPTIONS, Mode, parse
from router.config.sources import masked_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "mode", "hosts"),
    [
        ("redis://one", "single", [("one", 6379)]),
        ("redis://[::1]", "single", [("::1", 6379)]),
        ("rediss://user:hunter2@One:7000/3", "single", [("one", 7000)]),
        ("redis://one,two:27000,[::1]:5", "sentinel", [("one", 26379), ("two", 27000), ("::1", 5)]),
        ("redis://[2001:db8::1]:1,[2001:db8::2]:2/", "cluster", [("2001:db8::1", 1), ("2001:db8::2", 2)]),
        (" redis://:hunter2@one:1,two:2/0\n", "cluster", [("one", 1), ("two", 2)]),
    ],
)
def test_hosts(url: str, mode: Mode, hosts: list[tuple[str, int]]) -> None:
    found = parse(url, mode)
    assert found.hosts == hosts
    assert found.tls is url.startswith("rediss")
    assert found.password == (SECRET if SECRET in url else None)
    assert found.user == ("user" if "user" in url else None)
    assert found.database == (3 if url.endswith("/3") else 0)


def test_special_characters_of_a_password_are_written_in_percent() -> None:
    found = parse("redis://%40dmin:a%2Fb%3Fc%23d%40e,[:+@one:1,two:2", "cluster")
    assert (found.user, found.password) == ("@dmin", "a/b?c#d@e,[:+")


def test_options() -> None:
    found = parse(
        "rediss://s1,s2?ssl_ca_certs=%2Fca.pem&ssl_check_hostname=false&ssl_cert_reqs=none"
        "&username=user&password=a%26b+c&db=3&sentinel_username=watcher&sentinel_password=hush",
        "sentinel",
    )
    assert found.tls_options == {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "ssl_cert_reqs": "none"}
    assert (found.user, found.password, found.database) == ("user", "a&b+c", 3)
    assert (found.sentinel_user, found.sentinel_password) == ("watcher", "hush")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("mode", ["single", "sentinel", "cluster"])
def test_each_option_is_one_of_the_library(option: str, mode: Mode) -> None:
    """Connecting tells nothing of it; the library refuses a name that it does not know."""
    if option.startswith("sentinel_") and mode != "sentinel":
        return
    value = {"db": "0", "ssl_cert_reqs": "none", "ssl_check_hostname": "false"}.get(option, "x")
    more = "&ssl_certfile=x" if option == "ssl_keyfile" else ""
    given = address.parse(f"rediss://one?{option}={value}{more}", mode)
    client = Client(given, mode, Scripts(), service="s", pool_size=1, timeout_seconds=1)
    pool = getattr(client._redis, "connection_pool", None)
    if pool is not None:
        pool.make_connection()


@pytest.mark.parametrize(
    ("url", "mode", "words"),
    [
        ("", "single", "redis:// or rediss:// URL"),
        ("one:6379", "single", "redis:// or rediss:// URL"),
        ("unix:///run/redis.sock", "single", "redis:// or rediss:// URL"),
        ("redis://one,two", "single", "several hosts"),
        ("redis://one:port", "single", "not a number from 1 to 65535"),
        ("redis://one:0", "single", "not a number from 1 to 65535"),
        ("redis://one:1,two:65536", "cluster", "not a number from 1 to 65535"),
        ("redis://:hunter2@", "single", "has no host, or a stray comma"),
        ("redis://:hunter2@one,", "cluster", "has no host, or a stray comma"),
        ("redis://one, two", "cluster", "host:port"),
        ("redis://::1", "single", "for an IPv6 address"),
        ("redis://[::1", "single", "for an IPv6 address"),
        ("redis://[hunter2]:1", "single", "not an IPv6 address"),
        ("redis://one/2", "cluster", "only one"),
        ("redis://one/hunter2", "single", "database that is not a number"),
        ("redis://:hun/ter2@one", "single", "%2F"),
        ("redis://user:7?hunter2@one", "single", "%3F"),
        ("redis://user:7#hunter2@one", "single", "%23"),
        ("redis://one?password=hunter2@", "single", "%40"),
        ("redis://one?socket_timeot=3", "single", r"socket_timeot that .* did you mean online.timeout_seconds\?"),
        ("rediss://one?ssl_ca_cert=x", "single", r"did you mean ssl_ca_certs\?"),
        ("redis://one?hunter2", "single", r"an option that the router does not know; \(there are ssl_ca_certs,"),
        ("redis://one?socket_timeout=3", "single", "set online.timeout_seconds"),
        ("redis://one,two?max_connections=3", "cluster", "set online.pool_size"),
        ("redis://one?decode_responses=true", "single", "decode_responses that the router does not know"),
        ("redis://one?protocol=3", "single", "protocol that the router does not know"),
        ("redis://one,two?client_name=x", "cluster", "client_name that the router does not know"),
        ("redis://one,two?health_check_interval=1", "sentinel", "that the router does not know"),
        ("redis://one?password=", "single", "without a value"),
        ("redis://one?db=1&db=2", "single", "db twice"),
        ("redis://one/1?db=1", "single", "db twice"),
        ("redis://:hunter2@one?password=x", "single", "password twice"),
        ("redis://one?db=x", "single", "not a number"),
        ("redis://one?db=1", "cluster", "only one"),
        ("redis://one?ssl_ca_certs=x", "single", "rediss://"),
        ("rediss://one?ssl_keyfile=x", "single", "ssl_certfile"),
        ("rediss://one?ssl_cert_reqs=no", "single", "required or optional or none"),
        ("rediss://one?ssl_check_hostname=hunter2", "single", "true or false"),
        ("redis://one?sentinel_password=hunter2", "single", '"sentinel"'),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(url: str, mode: Mode, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse(url, mode)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@one:1,[::1]:2,three/0",
        "redis://:hun,t@er2,hunter2@one:1",
        "redis://one:1,two:2?password=hunter2",
        "redis://one:1,two:2?password=a@hunter2",
        "redis://one:1,two:2?ssl_ca_certs=x#hunter2",
        "redis://one:1,two:2#hunter2",
        "redis://:a?hunter2@one:1,two:2",
        "redis://:hunter2?b@one:1,two:2",
        "redis://:a#hunter2@one:1,two:2",
        "redis://:hunter2#b@one:1,two:2?x=y",
        "redis://:hunter2\n@one:1,two:2",
    ],
)
def test_no_secret_is_shown_however_the_url_is_written(url: str) -> None:
    masked = masked_url(url)
    assert SECRET not in masked
    assert "ter2" not in masked
    assert masked.startswith("redis://")

"""Loading the configuration: what wins, and what is refused in which words."""

from __future__ import annotations

import json
import pwd
import re
import tomllib
from pathlib import Path

import pytest

from router.config import Config, InvalidConfig, Service, go_names, known_keys, load, load_with_origins, with_ports

ROOT = Path(__file__).parents[2]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path | None = None, **environ: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(path, environ)
    return str(caught.value)


def test_load_without_settings_gives_the_defaults() -> None:
    config = load(environ={})
    assert config == Config()
    assert (config.server.host, config.server.api_port, config.server.ws_port) == ("127.0.0.1", 8082, 8083)
    assert config.auth.kind == "embedded"


def test_file_wins_over_default_and_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", "[server]\napi_port = 1000\nws_port = 1001\n")
    loaded = load_with_origins(path, {"ROUTER_SERVER__WS_PORT": "2001"})
    assert (loaded.config.server.api_port, loaded.config.server.ws_port) == (1000, 2001)
    assert loaded.origins == {"server.api_port": str(path), "server.ws_port": "ROUTER_SERVER__WS_PORT"}


def test_a_switch_is_true_or_false(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", "[embedded]\nremember_acknowledged = true\n")
    assert load(path, {}).embedded.remember_acknowledged
    assert not load(path, {"ROUTER_EMBEDDED__REMEMBER_ACKNOWLEDGED": "false"}).embedded.remember_acknowledged
    told = problems(ROUTER_EMBEDDED__REMEMBER_ACKNOWLEDGED="perhaps")
    assert "must be true or false" in told
    write(path, "[server]\nworkers = true\n")
    assert "server.workers" in problems(path)


def test_the_variable_names_the_file_and_the_option_wins_over_it(tmp_path: Path) -> None:
    named = write(tmp_path / "a.toml", "[limits]\nsend_burst = 1\n")
    option = write(tmp_path / "b.toml", "[limits]\nsend_burst = 2\n")
    environ = {"ROUTER_CONFIG": str(named)}
    assert load(None, environ).limits.send_burst == 1
    assert load(option, environ).limits.send_burst == 2


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path, *, by_variable: bool) -> None:
    path = tmp_path / "none.toml"
    text = problems(None, ROUTER_CONFIG=str(path)) if by_variable else problems(path)
    assert "there is no such file" in text
    assert str(path) in text


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"[server", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"server = 1", "write [server]"),
        (b"[server]\nallowed_origins = " + 100_000 * b"[", "nested too deeply"),
        (b"[server]\nallowed_origins = " + 900 * b"[" + 900 * b"]", "nested too deeply"),
        (b"[server]\napi_port = " + 5_000 * b"1", "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    assert word in problems(path)


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        ("[server]\napi_prot = 1", "did you mean api_port?"),
        ("[sever]\nhost = 'x'", "did you mean server?"),
        ("api_port = 1", "did you mean server.api_port?"),
        ("[server]\nlease_seconds = 1", "did you mean online.lease_seconds?"),
        ("[zzz]", "there are server, auth, ingress"),
        ("project_id = 'x'", "project_id of go-routing-service is google.project here"),
        ("[cors]\nallowed_origins = []", "cors of go-routing-service is server.allowed_origins here"),
        ("[server]\nwebsocket_port = 1", "websocket_port of go-routing-service is server.ws_port here"),
        ("num_pipeline_workers = 10", "start `router process` more often"),
    ],
)
def test_a_typo_in_the_file_says_what_was_meant(tmp_path: Path, content: str, guess: str) -> None:
    assert guess in problems(write(tmp_path / "r.toml", content))


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("ROUTER_SERVER__API_PROT", "did you mean ROUTER_SERVER__API_PORT?"),
        ("ROUTER_SERVE__API_PORT", "did you mean ROUTER_SERVER__API_PORT?"),
        ("ROUTER_X__YZ", "write ROUTER_<SECTION>__<KEY>"),
        ("ROUTER_SERVER__WEBSOCKET_PORT", "did you mean ROUTER_SERVER__WS_PORT?"),
    ],
)
def test_a_typo_in_the_environment_says_what_was_meant(name: str, guess: str) -> None:
    text = problems(None, **{name: "1"})
    assert guess in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"ROUTER_TEST_REDIS": "x"},
        {"ROUTER_DEBUG": "1", "ROUTER_URL": "http://x", "ROUTER_TOKEN": "x"},
        {"ROUTER_SERVICE_HOST": "10.0.0.1", "ROUTER_SERVICE_PORT": "80", "ROUTER_SERVICE_PORT_HTTP": "80"},
        {"ROUTER_PORT": "tcp://10.0.0.1:80", "ROUTER_PORT_80_TCP": "tcp://10.0.0.1:80", "ROUTER_PORT_80_TCP_ADDR": "x"},
        {"ROUTER_API_SERVICE_HOST": "10.0.0.1", "ROUTER_API_PORT": "tcp://10.0.0.1:80"},
        {"ROUTER_AUTH__ISSUER": "", "ROUTER_LIMITS__SEND_BURST": ""},
    ],
    ids=["tests", "command line", "kubernetes", "kubernetes ports", "kubernetes with a dash", "empty"],
)
def test_variables_that_are_left_alone(environ: dict[str, str]) -> None:
    loaded = load_with_origins(None, environ)
    assert loaded.config == Config()
    assert loaded.warnings == []


def test_an_access_log_that_the_level_silences_is_warned_of() -> None:
    on = {"ROUTER_SERVER__ACCESS_LOG": "on"}
    assert load_with_origins(None, on).warnings == []
    (warning,) = load_with_origins(None, on | {"ROUTER_SERVER__LOG_LEVEL": "warning"}).warnings
    assert (warning.key, "server.log_level is warning" in warning.message) == ("server.access_log", True)


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("ROUTER_SERVER_API_PORT", "did you mean ROUTER_SERVER__API_PORT?"),
        ("ROUTER_CONFIGS", "did you mean ROUTER_CONFIG?"),
        ("ROUTER_HOME", "write ROUTER_<SECTION>__<KEY>"),
        ("ROUTER_PORT", "write ROUTER_<SECTION>__<KEY>"),
    ],
)
def test_a_variable_that_may_be_somebody_elses_is_warned_of(name: str, guess: str) -> None:
    """Without two underscores it can be no key; a container may have it for another program."""
    loaded = load_with_origins(None, {name: "8080"})
    assert loaded.config == Config()
    (warning,) = loaded.warnings
    assert warning.key == name
    assert "is ignored" in warning.message
    assert guess in warning.message
    assert ("did you mean" in warning.message) == ("did you mean" in guess)


def test_the_settings_of_go_routing_service_are_told_by_keys_that_exist() -> None:
    keys = {f"{section}.{key}" for section, own in known_keys().items() for key in own}
    assert set(go_names.VARIABLES.values()) <= keys
    named = {found for text in go_names.KEYS.values() for found in re.findall(r"[a-z]+\.[a-z_]+", text)}
    assert named <= keys


def test_a_yaml_file_is_told_to_be_toml(tmp_path: Path) -> None:
    assert "write the file in TOML" in problems(write(tmp_path / "config.yaml", 'project_id: "x"\n'))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", '[server]\nhost = true\nlog_level = "loud"\nnope = 1\n[limits]\nsend_rate = -1\n')
    with pytest.raises(InvalidConfig) as caught:
        load(path, {"ROUTER_LIMITS__SEND_BURST": "many", "ROUTER_NO__PE": "1"})
    found = {problem.key: problem for problem in caught.value.problems}
    assert set(found) == {
        "server.host", "server.log_level", "server.nope", "limits.send_rate", "limits.send_burst", "ROUTER_NO__PE",
    }  # fmt: skip
    assert found["limits.send_burst"].source == "ROUTER_LIMITS__SEND_BURST"
    assert found["limits.send_burst"].message == "is a string ('many'), but must be a whole number of 1 or more"
    assert found["server.log_level"].message.endswith("must be debug, info, warning or error")
    assert found["limits.send_rate"].source == str(path)


@pytest.mark.parametrize(
    "text", ['["https://a.example", "https://b.example"]', "https://a.example, https://b.example,"]
)
def test_lists_are_json_or_have_commas(text: str) -> None:
    config = load(environ={"ROUTER_SERVER__ALLOWED_ORIGINS": text})
    assert config.server.allowed_origins == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(
    ("text", "audience"), [("router", ["router"]), ("a, b", ["a", "b"]), ('["a", "b"]', ["a", "b"])]
)
def test_an_audience_or_several(text: str, audience: list[str], tmp_path: Path) -> None:
    assert load(environ={"ROUTER_AUTH__AUDIENCE": text}).auth.audience == audience
    path = write(tmp_path / "r.toml", f"[auth]\naudience = {json.dumps(audience)}\n")
    assert load(path, {}).auth.audience == audience
    assert load(write(path, '[auth]\naudience = "router"\n'), {}).auth.audience == "router"
    assert "a string or a list of strings (1 or more)" in problems(write(path, "[auth]\naudience = []\n"))
    assert "a string or a list of strings (1 or more)" in problems(write(path, "[auth]\naudience = [5]\n"))


def test_a_broken_list_is_told() -> None:
    assert 'write ["a", "b"] or a,b' in problems(ROUTER_SERVER__ALLOWED_ORIGINS='["a"')


def test_a_secret_is_in_no_error_and_no_repr(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", '[online]\nkind = "redis"\nurl = ["redis://:hunter2@h"]\n')
    assert "online.url" in problems(path)
    assert "hunter2" not in problems(path)
    assert "hunter2" not in problems(ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL="reddis://:hunter2@h")
    assert "hunter2" not in problems(ROUTER_AUTH__JWKS_URL="ftp://u:hunter2@h")
    config = load(environ={"ROUTER_ONLINE__URL": "redis://:hunter2@h"})
    assert "hunter2" not in repr(config)
    assert config.online.url is not None
    assert config.online.url.get_secret_value() == "redis://:hunter2@h"


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        ({"ROUTER_ONLINE__HEARTBEAT_SECONDS": "60"}, "online.heartbeat_seconds"),
        ({"ROUTER_ONLINE__PUSH_AFTER_SECONDS": "600"}, "online.push_after_seconds"),
        ({"ROUTER_SERVER__ALLOWED_ORIGINS": 100_000 * "["}, "nested too deeply"),
        ({"ROUTER_SERVER__ALLOWED_ORIGINS": f"[{5_000 * '1'}]"}, "is not a list"),
        ({"ROUTER_AUTH__KIND": "jwks"}, "needs auth.identity_service_url or auth.jwks_url"),
        ({"ROUTER_AUTH__ALGORITHMS": "RS256,HS256"}, "'HS256' is not supported"),
        ({"ROUTER_AUTH__ALGORITHMS": "none"}, "'none' is not supported"),
        ({"ROUTER_AUTH__JWKS_URL": "id.example.com/jwks"}, "not a http:// or https:// URL"),
        ({"ROUTER_ONLINE__KIND": "redis"}, "must be a redis:// or rediss:// URL"),
        ({"ROUTER_SERVER__ALLOWED_ORIGINS": "https://a.example/"}, "is not an origin"),
        ({"ROUTER_PUSH__TOPIC": "ingress-topic"}, "must differ"),
        ({"ROUTER_PUSH__FORMAT": "notification-request"}, "does not work with the embedded outbox"),
        ({"ROUTER_LIMITS__EPHEMERAL_SECONDS": "nan"}, "a number above 0"),
        ({"ROUTER_INGRESS__IDEMPOTENCY_SECRET": "x"}, "can be guessed"),
        ({"ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcde"}, "can be guessed"),
        ({"ROUTER_INGRESS__IDEMPOTENCY_SECRET": "abcdefg" * 9}, "can be guessed"),
    ],
)
def test_what_cannot_work_together_is_refused(environ: dict[str, str], word: str) -> None:
    assert word in problems(None, **environ)


def test_an_url_means_jwks() -> None:
    assert load(environ={"ROUTER_AUTH__JWKS_URL": "https://id.example/jwks"}).auth.kind == "jwks"
    assert load(environ={"ROUTER_AUTH__IDENTITY_SERVICE_URL": "https://id.example"}).auth.kind == "jwks"
    assert load(environ={"ROUTER_AUTH__JWKS_URL": "https://x", "ROUTER_AUTH__KIND": "embedded"}).auth.kind == "embedded"


def test_the_project_is_googles_variable_where_it_is_unset(tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", '[google]\nproject = "mine"\n')
    environ = {"GOOGLE_CLOUD_PROJECT": "theirs"}
    loaded = load_with_origins(None, environ)
    assert (loaded.config.google.project, loaded.origins["google.project"]) == ("theirs", "GOOGLE_CLOUD_PROJECT")
    assert load(path, environ).google.project == "mine"


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(environ={"ROUTER_EMBEDDED__DATA_DIR": "~/data"}).embedded.data_dir == tmp_path / "data"


PRODUCTION = {
    "ROUTER_ONLINE__KIND": "redis",
    "ROUTER_ONLINE__URL": "redis://127.0.0.1:9",
    "ROUTER_COLD__KIND": "firestore",
    "ROUTER_INGRESS__KIND": "pubsub",
    "ROUTER_PUSH__KIND": "pubsub",
    "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcdef",
    "ROUTER_AUTH__JWKS_URL": "https://id.example/jwks",
    "GOOGLE_CLOUD_PROJECT": "p",
}


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME and no passwd entry, as under ``env -i`` with a uid of its own."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({}, "embedded.data_dir"),
        ({"ROUTER_EMBEDDED__DATA_DIR": "~/x"}, "embedded.data_dir"),
        ({**PRODUCTION, "ROUTER_GOOGLE__CREDENTIALS_FILE": "~/key.json"}, "google.credentials_file"),
        ({"ROUTER_CONFIG": "~/router.toml", **PRODUCTION}, "ROUTER_CONFIG=~/router.toml"),
    ],
)
def test_without_a_home_directory_a_path_must_be_whole(environ: dict[str, str], key: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        load(None, environ)
    assert [problem.key or problem.source for problem in refused.value.problems] == [key]


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("environ", [PRODUCTION, {"ROUTER_EMBEDDED__DATA_DIR": "/var/lib/router"}])
def test_a_home_directory_that_is_not_needed_may_be_missing(environ: dict[str, str]) -> None:
    load(None, environ)


def test_port_is_the_one_port_of_a_single_service() -> None:
    config, environ = Config(), {"PORT": "8080"}
    assert with_ports(config, "serve", {}) == config
    serve = with_ports(config, "serve", environ).server
    assert (serve.api_port, serve.ws_port) == (8080, 8080)
    api = with_ports(config, "serve-api", environ).server
    assert (api.api_port, api.ws_port) == (8080, 8083)
    ws = with_ports(config, "serve-ws", environ).server
    assert (ws.api_port, ws.ws_port) == (8082, 8080)
    assert with_ports(config, "process", environ).process.port == 8080


def test_one_of_each_service_runs_on_one_host() -> None:
    services: tuple[Service, ...] = ("serve-api", "serve-ws", "process")
    ports = [with_ports(Config(), service, {}).server.admin_port for service in services]
    assert ports == [8084, 8085, 8086]
    assert with_ports(Config(), "serve", {}).server.admin_port == 8084
    assert not set(ports) & {Config().server.api_port, Config().server.ws_port}
    for service in services:
        told = load(None, {"ROUTER_SERVER__ADMIN_PORT": "8084"})
        assert with_ports(told, service, {"PORT": "8080"}).server.admin_port == 8084, "who sets it gets it"


@pytest.mark.parametrize("text", ["http", "-1", "65536", "8080 ", "٣", 5_000 * "1"], ids=lambda text: text[:9])
def test_an_invalid_port_variable_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"PORT: is .* a whole number from 0 to 65535"):
        with_ports(Config(), "serve", {"PORT": text})


def test_the_example_file_gives_the_defaults_commented_or_not(tmp_path: Path) -> None:
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert load(ROOT / "config.example.toml", {}) == Config()
    # What follows "for example" has no default.
    lines = text.splitlines()
    kept, example = [], False
    for line in lines:
        if re.match(r"#\w+ = ", line):
            kept.append(line if example else line[1:])
            example = False
        else:
            kept.append(line)
            example = "for example:" in line if line.strip() else False
    path = write(tmp_path / "all.toml", "\n".join(kept))
    assert load(path, {}) == Config()
    shown = tomllib.loads(re.sub(r"(?m)^#(\w+ = )", r"\1", text))
    assert {section: set(keys) for section, keys in shown.items()} == {
        section: set(keys) for section, keys in known_keys().items()
    }

"""Help, errors and exit codes of the installed command, as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.backends.embedded.schema import prepare
from router.cli.app import COMMANDS, load
from router.cli.exits import Code
from tests.cli.conftest import Router, environment, without_rights

HEAVY = {"pydantic", "starlette", "uvicorn", "sqlite3", "jwt", "httpx", "rich", "cryptography", "asyncio"}


def test_help_says_what_to_type_first(router: Router) -> None:
    shown = router("--help")
    assert shown.returncode == 0
    assert shown.stdout.index("router serve") < shown.stdout.index("router listen") < shown.stdout.index("Options:")
    for entry in COMMANDS:
        assert entry.name in shown.stdout
    assert router("-h").stdout == shown.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, router.cli\nsys.argv = ['router', '--help']\ntry: router.cli.main()\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "router.cli.app" in shown.stderr.split()
    assert not HEAVY & set(shown.stderr.split())


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_each_command_is_listed_with_the_first_line_of_its_help(entry: object) -> None:
    listed = next(known for known in COMMANDS if known is entry)
    command = load(listed)
    assert command.help.split("\n\n")[0].replace("\n", " ") == listed.summary
    for described in (command, *getattr(command, "commands", {}).values()):
        assert "Example" in described.help, "every help text has an example"


def test_version(router: Router) -> None:
    assert router("--version").stdout.startswith("router ")


SEND = ["send", "--as", "alice", "--to", "bob", "--data", ""]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ([], Code.USAGE, "Usage: router"),
        (["serv"], Code.USAGE, "Did you mean 'serve"),
        (["--nope"], Code.USAGE, "No such option"),
        (["migrate"], Code.USAGE, "choose whose mail to move"),
        (["migrate", "bob", "--all"], Code.USAGE, "choose whose mail to move"),
        (["migrate", "a b"], Code.USAGE, "is not a valid user"),
        (["token", "bob", "--ttl", "soon"], Code.USAGE, "write for example 90s, 30m"),
        (["token", "bob", "--ttl", "0"], Code.USAGE, "must be from 1s to 36500d"),
        (["token", "bob", "--ttl", "36501d"], Code.USAGE, "must be from 1s to 36500d"),
        (["token", "bob", "--ttl", f"{'9' * 5000}d"], Code.USAGE, "is not a duration"),
        (["dead-letters", "--body"], Code.USAGE, "needs --json"),
        (["dead-letters", "discard"], Code.USAGE, "choose dead letters"),
        (["dead-letters", "discard", "an-id", "--all"], Code.USAGE, "--all cannot be combined"),
        (["dead-letters", "discard", "--all", "--reason", "damaged"], Code.USAGE, "--all cannot be combined"),
        (["dead-letters", "discard", "--before", "yesterday"], Code.USAGE, "is not a date or time"),
        (["dead-letters", "discard", "--reason", "boredom"], Code.USAGE, "boredom"),
        (["send", "--as", "alice"], Code.USAGE, "give either a FILE with an envelope, or --to"),
        (["send", "--as", "alice", "envelope.json", "--data", "x"], Code.USAGE, "--ephemeral need --to"),
        (["send", "--as", "alice", "envelope.json", "--ephemeral"], Code.USAGE, "--ephemeral need --to"),
        (["send", "--as", "alice", "--to", "bob", "--data", "x", "--data-file", "f"], Code.USAGE, "choose"),
        (["send", "--as", "alice", "--to", "bob", "--data-file", "/does/not/exist"], Code.IO, "/does/not/exist"),
        (["send", "--as", "alice", "--to", "bob"], Code.USAGE, "for an empty message, use --data ''"),
        (
            [*SEND, "--url", "localhost:8082"],
            Code.USAGE,
            "is not a http:// or https:// URL",
        ),
        (
            [*SEND, "--url", "http://[::1"],
            Code.USAGE,
            "is not a http:// or https:// URL",
        ),
        (
            [*SEND, "--key", "ä"],
            Code.DATA,
            "Idempotency-Key must be 1 to 255",
        ),
        (
            [*SEND, "--key", "a\nb"],
            Code.DATA,
            "Idempotency-Key must be 1 to 255",
        ),
        (
            [*SEND, "--key", ""],
            Code.DATA,
            "Idempotency-Key must be 1 to 255",
        ),
        (
            ["listen", "--as", "bob", "--dir", "d", "--ws-url", "http://x/connect"],
            Code.USAGE,
            "is not a ws:// or wss:// URL",
        ),
        (["bench", "--bytes", "10"], Code.USAGE, "--bytes"),
        (["bench", "--tokens", "/does/not/exist"], Code.IO, "/does/not/exist"),
        (["send", "--to", "bob", "--data", "x"], Code.DENIED, "no token: use --as USER"),
        (["listen", "--dir", "d"], Code.DENIED, "no token: use --as USER"),
        (["listen", "--as", "bob", "--dir", "d", "--token-file", "f"], Code.USAGE, "choose --as or --token-file"),
        (["listen", "--as", "bob", "--dir", ""], Code.USAGE, "is empty; name a directory"),
        (["listen", "--as", "bob", "--dir", __file__], Code.IO, "test_commands.py: Not a directory"),
        (["config", "show", "--json", "--toml"], Code.USAGE, "choose"),
        (["--config", "", "inspect-queue"], Code.USAGE, "is empty; name a file"),
        (["--config", "/does/not/exist", "inspect-queue"], Code.CONFIG, "there is no such file"),
    ],
)
def test_mistakes_have_their_codes(router: Router, arguments: list[str], code: Code, word: str) -> None:
    ended = router(*arguments)
    assert ended.returncode == code
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("token", [b"", b"sec\nret", b"s\xc3\xa4cret", b"\xff\x00secret", b"sec ret"])
@pytest.mark.parametrize(
    "command", [["send", "--to", "bob", "--data", ""], ["listen", "--dir", "d"], ["listen", "--dir", "d", "--once"]]
)
def test_what_no_token_can_be_is_told_at_once_and_not_shown(
    router: Router, tmp_path: Path, token: bytes, command: list[str]
) -> None:
    """Nothing listens: what is tried again would be tried for a minute."""
    file = tmp_path / "token"
    file.write_bytes(token)
    dir_ = str(tmp_path / "d")
    arguments = [dir_ if argument == "d" else argument for argument in command]
    ended = router(*arguments, "--token-file", str(file), "--url", "http://127.0.0.1:9")
    assert ended.returncode == Code.DENIED
    assert ended.stderr.startswith("error: the token is ")
    assert "ret" not in ended.stderr


def test_a_file_of_tokens_that_is_no_text(router: Router, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(b"bob \xff\xfe\n")
    ended = router("bench", "--tokens", str(file))
    assert ended.returncode == Code.DATA
    assert "line 1: write a user, a space, and a token" in ended.stderr


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("ROUTER_COLD__KIND", "firestore"), ("ROUTER_ONLINE__KIND", "firestore"), ("ROUTER_INGRESS__KIND", "pubsub")],
)
def test_google_kinds_need_a_project(router: Router, variable: str, kind: str) -> None:
    for command in ("inspect-queue", "setup"):
        ended = router(command, **{variable: kind})
        assert ended.returncode == Code.CONFIG
        assert ended.stderr.startswith("error: ")
        assert "google.project" in ended.stderr
        assert "GOOGLE_CLOUD_PROJECT" in ended.stderr


@pytest.mark.parametrize("command", ["inspect-queue", "setup", "token bob", "serve"])
@pytest.mark.parametrize("below", [".", "below/it"])
def test_a_data_directory_that_is_a_file(router: Router, data_dir: Path, command: str, below: str) -> None:
    data_dir.write_text("a file")
    ended = router(*command.split(), ROUTER_EMBEDDED__DATA_DIR=str(data_dir / below))
    assert ended.returncode == Code.CONFIG
    assert ended.stderr.startswith("error: ")
    assert f"{data_dir} is not a directory; move that away, or name another with embedded.data_dir" in ended.stderr


@pytest.mark.parametrize(
    "command", [["setup"], ["setup", "--dry-run"], ["inspect-queue"], ["outbox"], ["token", "bob"], ["serve"]]
)
def test_a_data_directory_of_somebody_else(data_dir: Path, command: list[str]) -> None:
    ended = _without_rights(data_dir, *command)
    assert ended.returncode == Code.CONFIG
    assert ended.stderr.startswith("error: cannot ")
    assert f"{data_dir}" in ended.stderr
    assert "embedded.data_dir" in ended.stderr


def test_doctor_finds_a_data_directory_of_somebody_else(data_dir: Path) -> None:
    ended = _without_rights(data_dir, "doctor", "--json")
    assert ended.stderr == ""
    assert ended.returncode == Code.ERRORS
    found = {finding["check"]: finding for finding in json.loads(ended.stdout)["findings"]}
    assert found["embedded.data_dir"]["severity"] == "error"
    assert found["embedded.data_dir"]["found"] == f"{data_dir} cannot be written by this user"


def _without_rights(data_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """What ``command`` says where nobody but a superuser could enter the data directory."""
    data_dir.mkdir(mode=0)
    return subprocess.run(
        without_rights("dac_override", "dac_read_search", arguments=[sys.executable, "-m", "router", *command]),
        env=environment(data_dir),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_bug_is_one_line_unless_asked_for(data_dir: Path) -> None:
    code = (
        "import sys, router.cli, router.cli.setup as setup\n"
        "def broken(config): raise ZeroDivisionError('oops')\n"
        "setup._keys = broken\nsys.argv = ['router', 'setup']\nrouter.cli.main()"
    )
    for debug in ({}, {"ROUTER_DEBUG": "1"}):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(data_dir, **debug),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == Code.SOFTWARE
        assert ("Traceback" in ended.stderr) == bool(debug)
        assert ended.stderr.splitlines()[-1].startswith("error: a bug in the router (ZeroDivisionError: oops)")


def test_a_reader_that_goes_is_no_error(data_dir: Path) -> None:
    prepare(data_dir)
    command = [sys.executable, "-m", "router", "inspect-queue", "--watch"]
    watching = subprocess.Popen(
        command, env=environment(data_dir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    assert json.loads(watching.stdout.readline())["connections"] == 0
    watching.stdout.close()
    assert watching.wait(30) == Code.BROKEN_PIPE
    assert watching.stderr.read() == f"looking at embedded, {data_dir}\n"
    watching.stderr.close()


def test_an_interrupt_ends_quietly(data_dir: Path) -> None:
    prepare(data_dir)
    following = subprocess.Popen(
        [sys.executable, "-m", "router", "inspect-queue", "--watch"],
        env=environment(data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=30)
    assert following.returncode == Code.INTERRUPTED
    assert "Traceback" not in errors


def test_completion_is_on(router: Router) -> None:
    shown = router("", _ROUTER_COMPLETE="complete_bash", COMP_WORDS="router ins", COMP_CWORD="1")
    assert "inspect-queue" in shown.stdout
    options = router("", _ROUTER_COMPLETE="complete_bash", COMP_WORDS="router migrate --st", COMP_CWORD="2")
    assert "--stale" in options.stdout


def test_config_check(router: Router, tmp_path: Path) -> None:
    assert router("config", "check").returncode == 0
    path = tmp_path / "r.toml"
    path.write_text("[server]\napi_prot = 1\n")
    ended = router("--config", str(path), "config", "check")
    assert ended.returncode == Code.CONFIG
    assert "did you mean api_port" in ended.stderr
    found = router("--config", str(path), "config", "check", "--json")
    assert found.returncode == Code.CONFIG
    document = json.loads(found.stdout)
    assert (document["ok"], document["file"], len(document["problems"])) == (False, str(path), 1)
    assert set(document["problems"][0]) == {"key", "source", "message"}


def test_config_check_names_what_variables_of_go_routing_service_are_called_here(router: Router) -> None:
    old = {
        "GCP_PROJECT_ID": "my-project",
        "IDENTITY_SERVICE_URL": "https://id.example",
        "REDIS_ADDR": "redis:6379",
        "CORS_ALLOWED_ORIGINS": "https://app.example",
        "API_PORT": "8082",
        "WEBSOCKET_PORT": "",
    }
    told = json.loads(router("config", "check", "--json", GOOGLE_CLOUD_PROJECT="my-project", **old).stdout)
    named = {warning["key"]: warning["message"] for warning in told["warnings"]}
    assert set(named) == {"IDENTITY_SERVICE_URL", "REDIS_ADDR", "CORS_ALLOWED_ORIGINS", "API_PORT"}, (
        "what lacks a value"
    )
    assert "set ROUTER_AUTH__IDENTITY_SERVICE_URL" in named["IDENTITY_SERVICE_URL"]
    assert "set ROUTER_ONLINE__URL, as redis://HOST:PORT, and ROUTER_ONLINE__KIND to redis" in named["REDIS_ADDR"]
    printed = router("config", "check", **old)
    assert printed.returncode == 0
    assert "set ROUTER_GOOGLE__PROJECT" in printed.stdout
    assert "warning" not in router("token", "bob", **old).stderr, "another program may have such variables"


def test_config_show_masks_and_says_where_from(router: Router) -> None:
    secrets = {
        "ROUTER_ONLINE__URL": "redis://user:hun/ter2@host:6379/0?password=hunter3",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "hunter4-0123456789",
        "ROUTER_AUTH__JWKS_URL": "https://u:hunter5@id.example/jwks",
    }
    for form in ((), ("--json",), ("--toml",)):
        shown = router("config", "show", *form, **secrets)
        assert shown.returncode == 0, shown.stderr
        assert "ter2" not in shown.stdout
        assert "hunter" not in shown.stdout
        assert "***@id.example/jwks" in shown.stdout
    online = json.loads(router("config", "show", "--json", "--section", "online", **secrets).stdout)
    assert list(online["sections"]) == ["online"]
    assert online["sections"]["online"]["url"] == {
        "value": "redis://***@host:6379/0?***",
        "origin": "ROUTER_ONLINE__URL",
    }
    assert online["sections"]["online"]["lease_seconds"] == {"value": 60.0, "origin": "default"}


def test_config_show_as_a_file_says_the_same(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(router("config", "show", "--toml", ROUTER_LIMITS__SEND_RATE="12.5").stdout)
    limits = json.loads(router("--config", str(path), "config", "show", "--json").stdout)["sections"]["limits"]
    assert limits["send_rate"] == {"value": 12.5, "origin": str(path)}

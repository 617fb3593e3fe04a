"""The commands, and how the one that is asked for is found. Help is shown without importing any of them.

Help is plain text: Typer's rich one costs a quarter of a second to import.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from router import __version__

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Entry(Struct, frozen=True):
    """A command and where it is."""

    name: str
    """One word, or two."""
    where: str
    """``module:attribute``: a function, or a ``typer.Typer`` with commands of its own."""
    panel: str
    summary: str
    """The first line of its help."""


SERVE, TRY, REPAIR, CONFIGURE = "Serve", "Try it", "Inspect and repair", "Configuration"
COMMANDS = (
    Entry("serve", "router.cli.services:serve", SERVE, "Run the whole router in one process."),
    Entry("serve-api", "router.cli.services:serve_api", SERVE, "Run the API service only."),
    Entry("serve-ws", "router.cli.services:serve_ws", SERVE, "Run the WebSocket service only."),
    Entry("process", "router.cli.services:process", SERVE, "Run the processing pipeline only."),
    Entry("token", "router.cli.token:token", TRY, "Print a token for a user, signed by the embedded key."),
    Entry(
        "token check", "router.cli.token_check:check", TRY, "Say whether the router accepts a token, and if not, why."
    ),
    Entry("send", "router.cli.send:send", TRY, "Send messages."),
    Entry("listen", "router.cli.listen:listen", TRY, "Receive messages: fetch, save, acknowledge."),
    Entry("bench", "router.cli.bench:bench", TRY, "Load a running router and check that it keeps its promises."),
    Entry(
        "conformance", "router.cli.conformance:conformance", TRY, "Play hard moments against a client, and judge it."
    ),
    Entry("top", "router.cli.top:top", REPAIR, "Watch rates, queues, connections and outages."),
    Entry("inspect-queue", "router.cli.inspect_queue:inspect_queue", REPAIR, "Show what is queued and who is online."),
    Entry("trace", "router.cli.trace:trace", REPAIR, "Show what became of a message, and what holds it up."),
    Entry(
        "connections", "router.cli.connections:connections", REPAIR, "Show who is connected, to which node, since when."
    ),
    Entry("disconnect", "router.cli.connections:disconnect", REPAIR, "Close all connections of a user, on every node."),
    Entry("audit", "router.cli.audit:audit", REPAIR, "Check that every accepted message is accounted for."),
    Entry("migrate", "router.cli.migrate:migrate", REPAIR, "Move hot queues to cold."),
    Entry(
        "import-go",
        "router.cli.import_go:import_go",
        REPAIR,
        "Import the mail that go-routing-service left.",
    ),
    Entry("outbox", "router.cli.outbox:outbox", REPAIR, "Show the push commands that wait in the outbox."),
    Entry(
        "dead-letters",
        "router.cli.dead_letters:app",
        REPAIR,
        "Show, replay or discard dead letters.",
    ),
    Entry("purge", "router.cli.purge:purge", REPAIR, "Delete everything of a user who leaves."),
    Entry("backup", "router.cli.backup:backup", REPAIR, "Write a backup of the embedded data to FILE."),
    Entry("restore", "router.cli.backup:restore", REPAIR, "Restore the embedded data from a backup."),
    Entry(
        "doctor", "router.cli.doctor:doctor", REPAIR, "Check what production needs, and say how to fix what is wrong."
    ),
    Entry("config", "router.cli.config:app", CONFIGURE, "Check and show the configuration."),
    Entry("setup", "router.cli.setup:setup", CONFIGURE, "Create what the backends need."),
)


def load(entry: Entry) -> Any:
    """The real command of ``entry``, as Typer's ``get_command`` makes it."""
    module, _, attribute = entry.where.partition(":")
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(entry.name, context_settings=SETTINGS)(target)
        target = app
    return _with_examples(get_command(target))


def _with_examples(command: Any) -> Any:
    """``command`` with the lines of indented paragraphs kept as they are in its help, which are else wrapped."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(f"\b\n{text}" if text.startswith("  ") else text for text in paragraphs)
    for subcommand in getattr(command, "commands", {}).values():
        _with_examples(subcommand)
    return command


class LazyGroup(TyperGroup):
    """Lists the commands by their summaries, and imports the one that runs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in COMMANDS:
            self.add_command(TyperCommand(entry.name, help=entry.summary))

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        width = max(len(entry.name) for entry in COMMANDS)
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS):
            rows = [(entry.name.ljust(width), entry.summary) for entry in COMMANDS if entry.panel == panel]
            with formatter.section(panel):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        for words in (2, 1):
            name = " ".join(args[:words])
            if entry := next((entry for entry in COMMANDS if entry.name == name), None):
                return name, load(entry), args[words:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="router",
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"router {__version__}")
        raise typer.Exit


def _file(text: str) -> Path:
    if not text:  # which would be the directory that one is in
        raise typer.BadParameter("is empty; name a file, or leave --config out")
    return Path(text)


@app.callback()
def router(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The TOML file to use, instead of the one that ROUTER_CONFIG names. See config.example.toml.",
            parser=_file,
        ),
    ] = None,
    _show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A pure router for sealed-sender messages: at least once, in order, and it learns nothing.

    To try it, you need no file and no other server:

      router serve                                   run it, in one terminal
      router token bob                               print a token, for your own programs
      router listen --as bob --dir inbox             receive bob's mail, in a second terminal
      router send --as alice --to bob --data hello   send him a message, in a third

    `router COMMAND --help` explains each command with an example.
    """
    ctx.obj = config


def command() -> Any:
    """The whole command line, as Typer's ``get_command`` makes it."""
    return _with_examples(get_command(app))

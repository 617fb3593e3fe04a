"""``serve``, ``serve-api``, ``serve-ws`` and ``process``."""

from __future__ import annotations

import typer

from router.cli.common import config_file
from router.config import Service, load_with_origins, with_ports


def serve(ctx: typer.Context) -> None:
    """Run the whole router in one process.

    Works without a configuration file and without other servers: it then listens on 127.0.0.1, keeps its data in the
    platform's default directory, and trusts the tokens of `router token`. It answers everything on server.api_port,
    and WebSockets on server.ws_port too; if PORT is set, it answers both on that port instead. Metrics are on
    server.admin_port. SIGTERM, Ctrl-C or closing the terminal drains and ends it. With server.workers it is several
    processes on the same ports, one for each core if that is "auto".

    Example:

      router serve
      router --config router.toml serve
    """
    _run(ctx, "serve")


def serve_api(ctx: typer.Context) -> None:
    """Run the API service only.

    Stateless: run as many as you like. Listens on server.api_port, or on PORT if set.

    Example:

      PORT=8080 router --config router.toml serve-api
    """
    _run(ctx, "serve-api")


def serve_ws(ctx: typer.Context) -> None:
    """Run the WebSocket service only.

    Holds the WebSockets and records who is online. Listens on server.ws_port, or on PORT if set.

    Example:

      router --config router.toml serve-ws
    """
    _run(ctx, "serve-ws")


def process(ctx: typer.Context) -> None:
    """Run the processing pipeline only.

    Routes accepted messages to hot or cold, and sweeps. Answers probes on process.port, or on PORT, if one is set.
    Metrics are on server.admin_port, as for every service.

    Example:

      ROUTER_PROCESS__PORT=8080 router --config router.toml process
    """
    _run(ctx, "process")


def _run(ctx: typer.Context, service: Service) -> None:
    loaded = load_with_origins(config_file(ctx))
    config = with_ports(loaded.config, service)
    from router.cli.worker import PROGRAM  # noqa: PLC0415 - the same
    from router.service import run  # noqa: PLC0415 - a wrong configuration is told without loading the servers

    raise typer.Exit(run(config, service, PROGRAM, loaded.warnings))

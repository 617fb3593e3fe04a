"""A real router as a child process, driven by its command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support import forks
from tests.support.servers import free_port

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class Router:
    """A data directory and its ports, and the processes that were started on them."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.api_port, self.ws_port = free_port(), free_port()
        self.admin_ports = {service: free_port() for service in ("serve", "serve-api", "serve-ws", "process")}
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.ws_url = f"ws://127.0.0.1:{self.ws_port}/connect"
        self.data_dir = data_dir
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
        self.environment = {
            **inherited,
            "ROUTER_EMBEDDED__DATA_DIR": str(data_dir),
            "ROUTER_SERVER__API_PORT": str(self.api_port),
            "ROUTER_SERVER__WS_PORT": str(self.ws_port),
            "ROUTER_SERVER__ADMIN_PORT": str(self.admin_ports["serve"]),
            **(settings or {}),
        }

    @contextmanager
    def running(self, service: str = "serve", first: str = ":") -> Iterator[subprocess.Popen[bytes]]:
        """The service from ready to ended (see ``start``); what it still runs at the end is killed by its own id."""
        process = self.start(service, first=first)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, service: str = "serve", redirections: str = "", first: str = ":") -> subprocess.Popen[bytes]:
        """The service, ready; ``redirections`` are a shell's, and so is what it does ``first``."""
        command = redirected(redirections, service, first=first)
        log = (self.data_dir.parent / f"{service}.log").open("ab")
        environment = {**self.environment, "ROUTER_SERVER__ADMIN_PORT": str(self.admin_ports[service])}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        log.close()
        port = {"serve": self.api_port, "serve-api": self.api_port, "serve-ws": self.ws_port}.get(service)
        if port is not None:
            self.wait_until_ready(process, port)
        return process

    def wait_until_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the router ended with {process.returncode}; see its log"
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                    return
            time.sleep(0.02)
        raise AssertionError("the router did not become ready")

    def command(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return forks.run(arguments, self.environment, stdin=stdin)

    def cli(self, *arguments: str, stdin: bytes = b"") -> str:
        """What a command printed that worked."""
        done = self.command(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def log(self, service: str = "serve") -> str:
        """What the service has logged so far."""
        return (self.data_dir.parent / f"{service}.log").read_text()

    def wait_for_log(self, words: str, service: str = "serve") -> None:
        """Return when the service has logged ``words``."""
        deadline = time.monotonic() + START_SECONDS
        while words not in self.log(service):
            assert time.monotonic() < deadline, f"{words!r} was not logged"
            time.sleep(0.01)

    def admin(self, path: str, service: str = "serve") -> httpx.Response:
        """What the admin port of ``service`` answers."""
        return httpx.get(f"http://127.0.0.1:{self.admin_ports[service]}{path}", timeout=START_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """One sample of ``/metrics``; 0 where there is none."""
        for family in text_string_to_metric_families(self.admin("/metrics").text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def token(self, user: str) -> str:
        return self.cli("token", user).strip()


def redirected(redirections: str, *arguments: str, first: str = ":") -> list[str]:
    """The command that runs ``router`` with its standard streams redirected as a shell does, as by ``>&-``; ``first``:
    a command of the shell, as for limits."""
    shell = f'{first} && exec "$0" "$@" {redirections}'
    return ["/bin/sh", "-c", shell, sys.executable, "-m", "router", *arguments]


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM; the exit code of the drained process."""
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_SECONDS)

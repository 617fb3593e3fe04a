"""``python -m router.healthcheck``: checks that the service of this container answers, in images without curl.

Requests ``/healthz`` at the given port, or ``PORT``: on ``ROUTER_SERVER__HOST``, and on the loopback addresses of IPv4
and IPv6. Exits with 0 if one of them answers that it is alive, else with 1.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0
LOOPBACK = ("127.0.0.1", "::1")
ALL = ("", "0.0.0.0", "::")  # noqa: S104 - a service that listens there is asked on loopback


def main(arguments: list[str]) -> int:
    """Returns the exit code; writes to stderr what is wrong."""
    port = arguments[0] if arguments else os.environ.get("PORT", "")
    if not (port.isascii() and port.isdigit()):
        print("name the port, or set PORT", file=sys.stderr)  # noqa: T201
        return 1
    problems = []
    for host in _hosts():
        problem = _problem(host, int(port))
        if problem is None:
            return 0
        problems.append(f"{host}: {problem}")
    print(f"port {port} is not alive; {'; '.join(problems)}", file=sys.stderr)  # noqa: T201
    return 1


def _hosts() -> list[str]:
    named = os.environ.get("ROUTER_SERVER__HOST", "")
    return list(dict.fromkeys(LOOPBACK if named in ALL else (named, *LOOPBACK)))


def _problem(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return None if status == 200 else f"it answers {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

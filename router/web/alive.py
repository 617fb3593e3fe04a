"""``python -m router.web.alive``: does the service of this container answer? For images that hold no curl.

Asks ``/healthz`` on 127.0.0.1, at the port that is named, or ``PORT``; exits with 0 where it is alive, else with 1.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """The exit code; says on stderr what is wrong."""
    port = arguments[0] if arguments else os.environ.get("PORT", "")
    if not (port.isascii() and port.isdigit()):
        print("name the port, or set PORT", file=sys.stderr)  # noqa: T201
        return 1
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as problem:
        print(f"port {port} does not answer: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        connection.close()
    if status != 200:
        print(f"port {port} answers {status}", file=sys.stderr)  # noqa: T201
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m router.web.alive``: the name under which images of development versions call ``router.healthcheck``."""

from __future__ import annotations

import sys

from router.healthcheck import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

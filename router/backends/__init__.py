"""The backends, side by side. Only ``router.factory`` imports them, and only those that are configured."""

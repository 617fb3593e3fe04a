"""Several processes that serve the same ports, and are one service to its operator."""

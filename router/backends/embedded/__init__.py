"""The embedded backend: every component over one SQLite file, durable, and shared by several processes."""

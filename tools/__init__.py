"""Checks and generators for those who work on the router; not part of the package."""

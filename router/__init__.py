"""A pure router for sealed-sender messages: at least once, in order, and it learns nothing."""

__version__ = "0.1.0"

"""Redis 7 or newer as the online store: presence, hot queue, pokes. See docs/redis.md."""

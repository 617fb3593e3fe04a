"""Who is calling: tokens, the keys that sign them, and the user they name (docs/specification.md#tokens)."""

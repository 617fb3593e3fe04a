"""Who is calling: tokens, the keys that sign them, and the user they name (spec, section 4)."""

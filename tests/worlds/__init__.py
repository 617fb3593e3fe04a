"""Two worlds: the same stranger does the same where only a victim's state differs, and must see the same."""

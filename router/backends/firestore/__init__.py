"""Firestore: the cold queue, and where configured the online store too. See docs/firestore.md."""

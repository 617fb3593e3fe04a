"""What a loss of power leaves on the disk of a real router, and whether every promise holds on it.

``journal.c`` notes what a router does to its files (``building``, ``traffic``). ``images`` makes of that what a disk
may hold after the power went at some moment: all that was synced, and any part of the rest, torn at 512 bytes.
``judge`` opens each with a fresh router and asks for every message that was confirmed by then (``rig``).
"""

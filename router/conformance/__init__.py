"""The conformance kit: plays out hard moments against a client and judges what it saved, acknowledged and sent.

A real router runs beneath; the client talks to a proxy in front of it, which loses answers, cuts pages and closes
sockets when a moment says so (docs/conformance.md).
"""

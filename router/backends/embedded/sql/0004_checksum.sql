-- The embedded schema, version 4.

-- router.checksum of id, recipient and envelope; NULL: an earlier version stored the message, and nobody can tell.
ALTER TABLE ingress ADD COLUMN checksum INTEGER;
ALTER TABLE hot ADD COLUMN checksum INTEGER;
ALTER TABLE cold ADD COLUMN checksum INTEGER;

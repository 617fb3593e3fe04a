-- The embedded schema, version 9.

-- When the inbound budget is whole again.
ALTER TABLE recipient ADD COLUMN inbound_until INTEGER NOT NULL DEFAULT 0;

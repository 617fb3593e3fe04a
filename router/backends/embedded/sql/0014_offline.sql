-- The embedded schema, version 14.

-- When the last connection of a user was seen to end, also while there is one again; 0 if none was.
ALTER TABLE recipient ADD COLUMN offline_since INTEGER NOT NULL DEFAULT 0;

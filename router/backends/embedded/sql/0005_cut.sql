-- The embedded schema, version 5.

-- When a page was cut short, or its user acknowledged after that; 0 where a fetch has come to the end since.
ALTER TABLE recipient ADD COLUMN cut_at INTEGER NOT NULL DEFAULT 0;
DROP INDEX recipient_busy;
CREATE INDEX recipient_busy ON recipient (user) WHERE hot > 0 OR fetched = 0 OR cut_at > 0;

-- The embedded schema, version 2.

-- 1: written while the online store could not be asked, which is still to be told of it.
ALTER TABLE cold ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;
CREATE INDEX cold_untold ON cold (queued_at) WHERE untold = 1;

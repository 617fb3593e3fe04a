-- The embedded schema, version 15.

-- What became of each recipient's messages: accepted = acknowledged + expired + dropped + dead + hot + cold.
ALTER TABLE recipient ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;
UPDATE recipient SET accepted = hot + cold WHERE hot + cold <> 0;

-- The same of those whose rows are forgotten, and of messages that no row counts, in one row.
CREATE TABLE books (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    accepted     INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    expired      INTEGER NOT NULL,
    dropped      INTEGER NOT NULL,
    dead         INTEGER NOT NULL
) STRICT;
INSERT INTO books (id, accepted, acknowledged, expired, dropped, dead) VALUES (1, 0, 0, 0, 0, 0);

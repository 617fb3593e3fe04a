-- The embedded schema, version 7.

-- A record is one of an id and its recipient: another recipient's message may have the same id.
CREATE TABLE route_of (
    id          TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    lane        INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    keyed       INTEGER NOT NULL,
    until       INTEGER,           -- when it may be forgotten, NULL while it is in a queue
    PRIMARY KEY (id, user)         -- in this order: ids that are new follow one another
) STRICT, WITHOUT ROWID;
INSERT INTO route_of SELECT id, user, lane, sequence, state, keyed, until FROM route;
DROP TABLE route;
ALTER TABLE route_of RENAME TO route;
CREATE INDEX route_until ON route (until) WHERE until IS NOT NULL;
CREATE INDEX route_owed ON route (user) WHERE state IN (1, 5);

-- The embedded schema, version 1. Times are µs since 1970 (UTC), users are canonical URNs.

-- Accepted messages that are not routed yet, in the order of their acceptance.
CREATE TABLE ingress (
    number      INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: the consumer's cursor relies on it
    id          TEXT    NOT NULL,
    recipient   TEXT    NOT NULL,
    envelope    BLOB    NOT NULL,
    lane        INTEGER NOT NULL,
    ephemeral   INTEGER NOT NULL,
    keyed       INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0         -- how often it was handed back
) STRICT;

-- The online store's state of one user.
CREATE TABLE recipient (
    user         TEXT    PRIMARY KEY,
    sequence     INTEGER NOT NULL DEFAULT 0, -- the highest that was ever given
    hot          INTEGER NOT NULL DEFAULT 0, -- messages in the hot queue
    cold         INTEGER NOT NULL DEFAULT 0, -- messages in cold or on their way there
    pending      INTEGER NOT NULL DEFAULT 0, -- cold writes under way
    cold_version INTEGER NOT NULL DEFAULT 0, -- rises with whatever may put mail into cold
    cold_empty   INTEGER NOT NULL DEFAULT 0, -- cold is known to be empty
    announced    INTEGER NOT NULL DEFAULT 0, -- hot mail up to this sequence was announced by a push command
    poked_at     INTEGER NOT NULL DEFAULT 0,
    fetched      INTEGER NOT NULL DEFAULT 1, -- since the last poke to all connections
    move_owner   TEXT    NOT NULL DEFAULT '',
    move_until   INTEGER NOT NULL DEFAULT 0  -- the migration lease
) STRICT;
CREATE INDEX recipient_busy ON recipient (user) WHERE hot > 0 OR fetched = 0;

-- Live WebSockets, each with its own lease.
CREATE TABLE presence (
    user        TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    node        TEXT    NOT NULL,
    since       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (user, id)
) STRICT, WITHOUT ROWID;

-- Every id that was routed, until its tombstone runs out. States: see lifecycle.State.
CREATE TABLE route (
    id          TEXT    PRIMARY KEY,
    user        TEXT    NOT NULL,
    lane        INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    keyed       INTEGER NOT NULL,
    until       INTEGER            -- when it may be forgotten, NULL while it is in a queue
) STRICT, WITHOUT ROWID;
CREATE INDEX route_until ON route (until) WHERE until IS NOT NULL;
CREATE INDEX route_owed ON route (user) WHERE state IN (1, 5);  -- pending, and acknowledged with a copy owed

-- The hot queue.
CREATE TABLE hot (
    row         INTEGER PRIMARY KEY,
    user        TEXT    NOT NULL,
    lane        INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    id          TEXT    NOT NULL,
    queued_at   INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    ephemeral   INTEGER NOT NULL,
    keyed       INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    envelope    BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX hot_place ON hot (user, lane, sequence);
CREATE INDEX hot_ephemeral ON hot (accepted_at) WHERE ephemeral = 1;
CREATE INDEX hot_ephemeral_of ON hot (user) WHERE ephemeral = 1; -- or a move would look at the whole queue for each batch

-- The cold queue.
CREATE TABLE cold (
    row         INTEGER PRIMARY KEY,
    user        TEXT    NOT NULL,
    lane        INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    id          TEXT    NOT NULL,
    queued_at   INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    keyed       INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    envelope    BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX cold_id ON cold (id);
CREATE UNIQUE INDEX cold_place ON cold (user, lane, sequence, id);

-- Push commands that no notification service has taken yet.
CREATE TABLE outbox (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    command   BLOB    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

-- What could not be routed.
CREATE TABLE dead_letter (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    attempts  INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    body      BLOB    NOT NULL
) STRICT;

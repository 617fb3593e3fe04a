-- The embedded schema, version 10.

-- The latest time that a process was sure of, in one row: what this file knows of the time, which has no clock of its own.
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;
INSERT INTO clock (id, at) VALUES (1, 0);

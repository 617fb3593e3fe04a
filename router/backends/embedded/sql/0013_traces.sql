-- The embedded schema, version 13.

-- The trace that a message is in (router.trace_context.joined), for services that are asked for traces. A message that
-- waits in the ingress has it there; one that is routed has it here, by its recipient and id, until it is acknowledged.
ALTER TABLE ingress ADD COLUMN trace TEXT;
CREATE TABLE trace_context (
    user  TEXT    NOT NULL,
    id    TEXT    NOT NULL,
    trace TEXT    NOT NULL,
    until INTEGER NOT NULL, -- when it may be forgotten
    PRIMARY KEY (user, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX trace_context_until ON trace_context (until);

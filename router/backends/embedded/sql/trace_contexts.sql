-- keep: Remember the trace of one message.
INSERT INTO trace_context (user, id, trace, until) VALUES (?, ?, ?, ?)
ON CONFLICT (user, id) DO UPDATE SET trace = excluded.trace, until = excluded.until;

-- find: The traces of some ids of one user.
SELECT id, trace FROM trace_context WHERE user = ? AND id IN (SELECT value FROM json_each(?));

-- take: The same, and forget them.
DELETE FROM trace_context WHERE user = ? AND id IN (SELECT value FROM json_each(?)) RETURNING id, trace;

-- any: Whether the time of any is over.
SELECT 1 FROM trace_context WHERE until <= ? LIMIT 1;

-- forget: Forget those whose time is over, up to a limit.
DELETE FROM trace_context WHERE (user, id) IN (SELECT user, id FROM trace_context WHERE until <= ? ORDER BY until LIMIT ?);

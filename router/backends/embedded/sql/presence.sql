-- live: The live connections of one user.
SELECT user, id, node, since, lease_until FROM presence WHERE user = ? AND lease_until > ? ORDER BY since, id;

-- nodes: The nodes that hold live connections of one user.
SELECT DISTINCT node FROM presence WHERE user = ? AND lease_until > ?;

-- others: How many other live connections one user holds.
SELECT count(*) FROM presence WHERE user = ? AND id <> ? AND lease_until > ?;

-- connect: Register a connection, or register it again.
INSERT INTO presence (user, id, node, since, lease_until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (user, id) DO UPDATE SET node = excluded.node, lease_until = excluded.lease_until;

-- welcome: A user has a new connection: the next message pokes all of them, unless it is poked now and a poke of the others
-- is unanswered. That poke may be lost, and is sent again.
INSERT INTO recipient (user, cold_empty) VALUES (?, ?)
ON CONFLICT (user) DO UPDATE SET fetched = fetched OR NOT (hot > 0 OR pending > 0 OR cold_empty = 0)
RETURNING hot > 0 OR pending > 0 OR cold_empty = 0;

-- greeted: The new connection is poked, since mail may be waiting.
UPDATE recipient SET poked_at = ? WHERE user = ?;

-- renew: Extend one lease that has not run out.
UPDATE presence SET lease_until = ? WHERE user = ? AND id = ? AND lease_until > ?;

-- disconnect: Remove one connection.
DELETE FROM presence WHERE user = ? AND id = ?;

-- expired: Connections whose lease ran out.
SELECT user, id, node, since, lease_until FROM presence WHERE lease_until <= ? LIMIT ?;

-- online: How many users hold how many live connections.
SELECT count(*), count(DISTINCT user) FROM presence WHERE lease_until > ?;

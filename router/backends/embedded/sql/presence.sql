-- live: The live connections of one user.
SELECT user, id, node, since, lease_until FROM presence WHERE user = ? AND lease_until > ? ORDER BY since, id;

-- live_of_all: The live connections of the first so many users behind one.
SELECT user, id, node, since, lease_until FROM presence
WHERE lease_until > :now AND user IN (
    SELECT DISTINCT user FROM presence WHERE user > :after AND lease_until > :now ORDER BY user LIMIT :limit
)
ORDER BY user, since, id;

-- nodes: The nodes that hold connections of some users, and whether their leases last.
SELECT DISTINCT user, node, lease_until > ? FROM presence WHERE user IN (SELECT value FROM json_each(?));

-- nodes_of_one: The same for one user.
SELECT DISTINCT user, node, lease_until > ? FROM presence WHERE user = ?;

-- note_offline: Note when the leases of some users ran out, before these are removed.
UPDATE recipient SET offline_since = coalesce(
    (SELECT max(lease_until) FROM presence WHERE presence.user = recipient.user AND lease_until <= ?), offline_since)
WHERE user = ?;

-- went_offline: Note when the last connection of a user ended.
UPDATE recipient SET offline_since = ? WHERE user = ?;

-- held: All connections of one user, those whose leases have run out as well.
SELECT user, id, node, since, lease_until FROM presence WHERE user = ? ORDER BY since, id;

-- end_leases: Remove the connections of some users whose leases ran out.
DELETE FROM presence WHERE user IN (SELECT value FROM json_each(?)) AND lease_until <= ?;

-- others: How many other live connections one user holds.
SELECT count(*) FROM presence WHERE user = ? AND id <> ? AND lease_until > ?;

-- connect: Register a connection, or register it again.
INSERT INTO presence (user, id, node, since, lease_until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (user, id) DO UPDATE SET node = excluded.node, lease_until = excluded.lease_until;

-- replace: Remove one connection unless its lease was renewed meanwhile.
DELETE FROM presence WHERE user = ? AND id = ? AND lease_until = ?;

-- end_node: End the leases of a node whose process is dead.
UPDATE presence SET lease_until = 0 WHERE node = ?;

-- welcome: Reset the poke flag for a new connection, so that the next message pokes it too; unless mail is waiting.
INSERT INTO recipient (user, cold_empty, cold_version)
VALUES (:user, :fresh_cold_empty AND NOT EXISTS (SELECT 1 FROM cold WHERE user = :user), :now)
ON CONFLICT (user) DO UPDATE SET
    fetched = CASE WHEN hot > 0 OR pending > 0 OR cold_empty = 0 THEN fetched ELSE 1 END,
    cut_at = CASE WHEN hot > 0 OR pending > 0 OR cold_empty = 0 THEN cut_at ELSE 0 END
RETURNING hot > 0 OR pending > 0 OR cold_empty = 0, cut_at;

-- greeted: Record the poke to a new connection, since mail may be waiting; only a fetch to the end answers it.
UPDATE recipient SET poked_at = ?, cut_at = ? WHERE user = ?;

-- left_behind: Mark the page as cut short, so that a sweeper pokes the connections that stay: the one that ended may have
-- fetched mail without acknowledging it. An earlier mark stays, so that its poke is not delayed.
UPDATE recipient SET cut_at = ? WHERE user = ? AND cut_at = 0 AND (pending > 0 OR cold_empty = 0);

-- connected: Whether a user has a connection, even one whose lease has run out.
SELECT 1 FROM presence WHERE user = ? LIMIT 1;

-- renew: Extend one lease that has not run out.
UPDATE presence SET lease_until = ? WHERE user = ? AND id = ? AND lease_until > ?;

-- disconnect: Remove one connection.
DELETE FROM presence WHERE user = ? AND id = ?;

-- expired: Connections whose lease ran out.
SELECT user, id, node, since, lease_until FROM presence WHERE lease_until <= ? LIMIT ?;

-- implausible: Whether a lease ends after this.
SELECT 1 FROM presence WHERE lease_until > ? LIMIT 1;

-- begin_now: Give these leases a new end.
UPDATE presence SET lease_until = ? WHERE lease_until > ?;

-- online: How many users hold how many live connections.
SELECT count(*), count(DISTINCT user) FROM presence WHERE lease_until > ?;

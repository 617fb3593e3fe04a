-- recipients: What routing needs of some users.
SELECT user, sequence, hot, hot_bytes, cold, cold_bytes, inbound_until, pending, cold_version, cold_empty, poked_at, fetched,
    accepted, dropped, dead
FROM recipient
WHERE user IN (SELECT value FROM json_each(?));

-- recipient: The same of one user, which takes half of the time.
SELECT user, sequence, hot, hot_bytes, cold, cold_bytes, inbound_until, pending, cold_version, cold_empty, poked_at, fetched,
    accepted, dropped, dead
FROM recipient
WHERE user = ?;

-- nothing_in_cold: Whether cold is in this file and holds no mail of an unknown user.
SELECT ? AND NOT EXISTS (SELECT 1 FROM cold WHERE user = ?);

-- not_in_cold: Whether cold is in this file and does not hold one message.
SELECT ? AND NOT EXISTS (SELECT 1 FROM cold WHERE id = ? AND user = ?);

-- save_recipient: Write back what routing changed.
INSERT INTO recipient
    (user, sequence, hot, hot_bytes, cold, cold_bytes, inbound_until, pending, cold_version, cold_empty, poked_at, fetched,
    accepted, dropped, dead)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (user) DO UPDATE SET
    sequence = excluded.sequence, hot = excluded.hot, hot_bytes = excluded.hot_bytes,
    cold = excluded.cold, cold_bytes = excluded.cold_bytes,
    inbound_until = excluded.inbound_until, pending = excluded.pending,
    cold_version = excluded.cold_version, cold_empty = excluded.cold_empty,
    poked_at = excluded.poked_at, fetched = excluded.fetched,
    accepted = excluded.accepted, dropped = excluded.dropped, dead = excluded.dead;

-- register: Record an id of a user; changes nothing if it is known.
INSERT OR IGNORE INTO route (id, user, lane, sequence, state, keyed, size) VALUES (?, ?, ?, ?, ?, ?, ?);

-- registered_some: The records of some ids, of all users.
SELECT id, user, sequence, state FROM route WHERE id IN (SELECT value FROM json_each(?));

-- registered: The record of one id of a user.
SELECT lane, sequence, state, keyed, size FROM route WHERE id = ? AND user = ?;

-- enqueue: Put one message into the hot queue.
INSERT INTO hot (user, lane, sequence, id, queued_at, accepted_at, ephemeral, keyed, attempts, checksum, envelope)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- set_state: Change the state of a message.
UPDATE route SET state = ?, until = ? WHERE id = ? AND user = ?;

-- drop: End the record of an ephemeral message that leaves the hot queue.
UPDATE route SET state = $AFTER_DROPPED, until = ? WHERE id = ? AND user = ?;

-- redelivered: Change the state of a redelivered message; its tombstone, if it is one, ends when it did before.
UPDATE route SET state = ? WHERE id = ? AND user = ?;

-- count: Add to one user's counters; the cold queue may have changed. With no messages left, the bytes become 0.
UPDATE recipient SET
    hot = hot + :hot, hot_bytes = iif(hot + :hot > 0, max(0, hot_bytes + :hot_bytes), 0),
    cold = max(0, cold + :cold), cold_bytes = iif(cold + :cold > 0, max(0, cold_bytes + :cold_bytes), 0),
    pending = pending + :pending, cold_version = cold_version + :cold_changed,
    cold_empty = CASE WHEN :cold_changed THEN 0 ELSE cold_empty END,
    acknowledged = acknowledged + :acknowledged, expired = expired + :expired,
    dropped = dropped + :dropped, dead = dead + :dead
WHERE user = :user;

-- head: What a reader needs to know before it reads.
SELECT fetched, pending, cold_empty, cold_version, announced FROM recipient WHERE user = ?;

-- answered: Whether the user has fetched since the last poke, and when a page was cut short.
SELECT fetched, cut_at FROM recipient WHERE user = ?;

-- fetched: Reset the poke flag, so that the next message pokes again, and set or clear the mark of a cut page.
UPDATE recipient SET fetched = 1, cut_at = ? WHERE user = ?;

-- ended: Clear the mark of a fetch that has reached the end, unless a later one has set another.
UPDATE recipient SET cut_at = 0 WHERE user = ? AND cut_at = ?;

-- cut: Set a new mark: a page was cut short, or the user has acknowledged after it.
UPDATE recipient SET cut_at = ? WHERE user = ?;

-- stop_poking: Stop repeating pokes to a user who is not connected, until new mail comes.
UPDATE recipient SET fetched = 1, cut_at = 0 WHERE user = ?
    AND NOT EXISTS (SELECT 1 FROM presence WHERE presence.user = recipient.user AND lease_until > ?);

-- read: The head of one hot queue from a lane on, without ephemeral messages accepted before a point in time.
SELECT id, lane, sequence, queued_at, accepted_at, ephemeral, keyed, attempts, checksum, envelope
FROM hot WHERE user = ? AND lane >= ? AND (ephemeral = 0 OR accepted_at > ?)
ORDER BY lane, sequence LIMIT ?;

-- page: head and read in one statement; only the head if the fetch must be marked first.
SELECT r.fetched, r.pending, r.cold_empty, r.cold_version, r.announced, r.cut_at,
    h.id, h.lane, h.sequence, h.queued_at, h.accepted_at, h.ephemeral, h.keyed, h.attempts, h.checksum, h.envelope
FROM recipient AS r LEFT JOIN hot AS h
    ON h.user = CASE WHEN r.fetched AND NOT r.cut_at OR ? THEN r.user END AND (h.ephemeral = 0 OR h.accepted_at > ?)
WHERE r.user = ? ORDER BY h.lane, h.sequence LIMIT ?;

-- pending: The pending cold writes of one user.
SELECT id, lane, sequence FROM route WHERE user = ? AND state IN $UNDER_WAY AND +state = $PENDING;

-- acked: Which of some ids this user has acknowledged, and whether nobody is about to delete a copy in cold.
SELECT id, state IN $BEFORE_FOUND FROM route WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state IN $GONE;

-- left: Which of some ids this user has no record of, and no message in cold.
SELECT value FROM json_each(:ids)
WHERE NOT EXISTS (SELECT 1 FROM route WHERE id = value AND user = :user)
    AND NOT EXISTS (SELECT 1 FROM cold WHERE id = value AND user = :user);

-- found: Make orphans of acknowledged messages that have copies in cold which nobody is about to delete.
UPDATE route SET state = $AFTER_FOUND
WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state IN $BEFORE_FOUND;

-- record_at: The id on record for one place, for a caller that does not know the id.
SELECT id FROM route WHERE user = ? AND lane = ? AND sequence = ?;

-- remove: Delete one message from the hot queue.
DELETE FROM hot WHERE user = ? AND lane = ? AND sequence = ?;

-- size_at: How many bytes the envelope of one message in the hot queue has.
SELECT length(envelope) FROM hot WHERE user = ? AND lane = ? AND sequence = ?;

-- cold_is_empty: Record that the cold queue was read and found empty. A store beside this file deletes what is past its
-- retention silently.
UPDATE recipient SET cold_empty = 1, expired = expired + iif(:beside, cold, 0), cold = 0, cold_bytes = 0
WHERE user = :user AND cold_version = :version AND pending = 0;

-- move_lease: Who holds one user's migration lease, and up to which sequence mail was announced.
SELECT move_owner, move_until, announced FROM recipient WHERE user = ?;

-- take_move_lease: Take or extend the migration lease.
UPDATE recipient SET move_owner = ?, move_until = ?, cold_version = cold_version + 1, cold_empty = 0 WHERE user = ?;

-- release_move_lease: Give the migration lease up.
UPDATE recipient SET move_owner = '', move_until = 0 WHERE user = ? AND move_owner = ?;

-- ephemeral: Ephemeral messages of one user.
SELECT user, lane, sequence, id, keyed, length(envelope) FROM hot WHERE user = ? AND ephemeral = 1;

-- mark_moving: Mark messages that a migrator takes.
UPDATE route SET state = $AFTER_TAKEN
WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state IN $BEFORE_TAKEN;

-- end_moving: Record that messages which were hot, or moving, are in cold.
UPDATE route SET state = $AFTER_MOVED, until = NULL
WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state IN $BEFORE_MOVED
RETURNING size;

-- remove_some: Delete messages of one lane from the hot queue.
DELETE FROM hot WHERE user = ? AND lane = ? AND sequence IN (SELECT value FROM json_each(?));

-- hot_users: Users with hot mail, an unanswered poke or a page that was cut short, after a name.
SELECT user, hot, poked_at, fetched, cut_at, announced FROM recipient
WHERE (hot > 0 OR fetched = 0 OR cut_at > 0) AND user > ? ORDER BY user LIMIT ?;

-- oldest: When the oldest hot message of one user behind a sequence was queued.
SELECT min(queued_at) FROM (
    SELECT queued_at FROM (
        SELECT queued_at FROM hot WHERE user = :user AND lane = 0 AND sequence > :sequence
            AND (ephemeral = 0 OR :ephemeral) ORDER BY sequence LIMIT 1)
    UNION ALL
    SELECT queued_at FROM (
        SELECT queued_at FROM hot WHERE user = :user AND lane = 1 AND sequence > :sequence
            AND (ephemeral = 0 OR :ephemeral) ORDER BY sequence LIMIT 1));

-- live: How many live connections a user holds.
SELECT count(*) FROM presence WHERE user = ? AND lease_until > ?;

-- poked: Record a poke to all connections of a user; it replaces the mark of a cut page.
UPDATE recipient SET poked_at = ?, fetched = 0, cut_at = 0 WHERE user = ?;

-- last_due: The last message of one user that was queued before a point in time.
SELECT max(sequence) FROM (
    SELECT sequence FROM (
        SELECT sequence FROM hot WHERE user = :user AND lane = 0 AND sequence > :announced
            AND ephemeral = 0 AND queued_at <= :before ORDER BY sequence DESC LIMIT 1)
    UNION ALL
    SELECT sequence FROM (
        SELECT sequence FROM hot WHERE user = :user AND lane = 1 AND sequence > :announced
            AND ephemeral = 0 AND queued_at <= :before ORDER BY sequence DESC LIMIT 1));

-- unannounced: The oldest messages without a push command, up to a sequence.
SELECT id, lane, sequence, queued_at, accepted_at, ephemeral, keyed, attempts, checksum, envelope FROM (
    SELECT * FROM (
        SELECT * FROM hot WHERE user = :user AND lane = 0 AND sequence > :announced
            AND ephemeral = 0 AND sequence <= :last ORDER BY sequence LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT * FROM hot WHERE user = :user AND lane = 1 AND sequence > :announced
            AND ephemeral = 0 AND sequence <= :last ORDER BY sequence LIMIT :limit))
ORDER BY sequence LIMIT :limit;

-- mark_announced: Record that push commands are published up to a sequence.
UPDATE recipient SET announced = max(announced, ?) WHERE user = ?;

-- orphans: Messages whose copy in cold nobody has reported as deleted, acknowledged before a point in time, or after one
-- that only a wrong clock can have given.
SELECT user, id FROM route WHERE state IN $UNDER_WAY AND +state = $ACKED_OWED
    AND until - CASE keyed WHEN 1 THEN ? ELSE ? END NOT BETWEEN ? AND ? LIMIT ?;

-- forget_orphan: Record that cold has no copy of an acknowledged message, if no migrator can be about to write one.
UPDATE route SET state = $AFTER_CLEARED WHERE id = ? AND user = ? AND state IN $BEFORE_CLEARED
    AND NOT EXISTS (SELECT 1 FROM recipient WHERE recipient.user = route.user AND move_until > ? AND move_until <= ?);

-- abandoned: Pending cold writes before a sequence, which nobody is going to do any more.
SELECT user, id, size FROM route
WHERE state IN $UNDER_WAY AND +state IN $BEFORE_ABANDONED AND sequence < ? LIMIT ?;

-- forgettable: Records whose time is over.
SELECT id, user FROM route WHERE until <= ? AND state IN $BEFORE_FORGOTTEN LIMIT ?;

-- forget: Delete one record.
DELETE FROM route WHERE id = ? AND user = ?;

-- records_of: Some of one user's records.
SELECT id, user FROM route WHERE user = ? LIMIT ?;

-- in_use: Whether mail of one user is hot, or a younger cold write than a sequence is pending.
SELECT EXISTS (SELECT 1 FROM hot WHERE user = :user)
    OR EXISTS (SELECT 1 FROM route WHERE user = :user AND state = $PENDING AND sequence > :since);

-- forget_connections: Delete one user's connections.
DELETE FROM presence WHERE user = ?;

-- forget_traces: Delete the traces of one user's messages.
DELETE FROM trace_context WHERE user = ?;

-- forget_user: Delete the state of one user. Mail that was on its way to cold counts as acknowledged, as that in the queue did.
DELETE FROM recipient WHERE user = ? RETURNING accepted, accepted - expired - dropped - dead, expired, dropped, dead;

-- stale_ephemeral: Ephemeral messages accepted before a point in time.
SELECT user, lane, sequence, id, keyed, length(envelope) FROM hot WHERE ephemeral = 1 AND accepted_at <= ? LIMIT ?;

-- idle_recipients: Users behind a name who have no mail queued.
SELECT user, hot OR cold OR pending OR sequence > :now OR (move_until > :now AND move_until <= :moving)
    OR (inbound_until > :now AND inbound_until <= :inbound) OR (offline_since > :left AND offline_since <= :present)
FROM recipient WHERE user > :after ORDER BY user LIMIT :limit;

-- forget_recipient: Delete the state of a user who still has no mail queued and no connection.
DELETE FROM recipient WHERE user = :user
    AND NOT (hot OR cold OR pending OR sequence > :now OR (move_until > :now AND move_until <= :moving)
        OR (inbound_until > :now AND inbound_until <= :inbound) OR (offline_since > :left AND offline_since <= :present))
    AND NOT EXISTS (SELECT 1 FROM presence WHERE presence.user = recipient.user)
RETURNING accepted, acknowledged, expired, dropped, dead;

-- totals_of: One user's hot queue.
SELECT count(*), coalesce(sum(length(envelope)), 0), coalesce(min(queued_at), 0) FROM hot WHERE user = ?;

-- totals: All hot queues.
SELECT count(*), coalesce(sum(length(envelope)), 0), count(DISTINCT user), coalesce(min(queued_at), 0) FROM hot;

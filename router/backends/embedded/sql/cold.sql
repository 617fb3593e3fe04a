-- put: Write one message. If the user has its id already, keep the lower sequence, and the first envelope unless that is damaged.
INSERT INTO cold (user, lane, sequence, id, queued_at, accepted_at, keyed, attempts, envelope, checksum, untold)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, user) DO UPDATE SET
    sequence = min(sequence, excluded.sequence),
    envelope = iif(is_whole(id, user, envelope, checksum), envelope, excluded.envelope),
    checksum = iif(is_whole(id, user, envelope, checksum), checksum, excluded.checksum)
WHERE excluded.sequence < sequence OR NOT is_whole(id, user, envelope, checksum);

-- read: A page of one cold queue.
SELECT id, lane, sequence, queued_at, accepted_at, keyed, attempts, checksum, envelope FROM cold
WHERE user = ? AND (lane, sequence) > (?, ?) ORDER BY lane, sequence LIMIT ?;

-- find: One message of one user, by its id.
SELECT id, lane, sequence, queued_at, accepted_at, keyed, attempts, checksum, envelope FROM cold
WHERE id = ? AND user = ?;

-- find_bare: The same without its envelope.
SELECT id, user, lane, sequence, queued_at, accepted_at, keyed, attempts, length(envelope) FROM cold
WHERE id = ? AND user = ?;

-- repair: Overwrite the envelope of one message that is there.
UPDATE cold SET envelope = ?, checksum = ? WHERE id = ? AND user = ?;

-- delete: Delete one message of one user.
DELETE FROM cold WHERE user = ? AND id = ?;

-- rows: How many rows follow a row, up to a limit, and the last of them.
SELECT count(*), max(row) FROM (SELECT row FROM cold WHERE row > ? ORDER BY row LIMIT ?);

-- expired: The messages behind one row, up to another row, that were queued at or before a point in time.
SELECT id, user, lane, sequence, queued_at, accepted_at, keyed, attempts, length(envelope) FROM cold
WHERE row > ? AND row <= ? AND queued_at <= ?;

-- unreported: Messages that the online store does not know yet and that were queued at or before a point in time.
SELECT id, user, lane, sequence, queued_at, accepted_at, keyed, attempts, length(envelope) FROM cold
WHERE untold = 1 AND queued_at <= ? ORDER BY queued_at LIMIT ?;

-- update_places: Set whether the online store knows of one message, and its sequence if that is lower.
UPDATE cold SET untold = ?, sequence = min(sequence, ?) WHERE id = ? AND user = ?;

-- oldest: The users whose cold queues hold the oldest mail.
SELECT user, count(*), sum(length(envelope)), min(queued_at) FROM cold GROUP BY user ORDER BY 4 LIMIT ?;

-- longest: The users whose cold queues hold the most messages.
SELECT user, count(*), sum(length(envelope)), min(queued_at) FROM cold GROUP BY user ORDER BY 2 DESC, 4 LIMIT ?;

-- totals_of: One user's cold queue.
SELECT count(*), coalesce(sum(length(envelope)), 0), coalesce(min(queued_at), 0) FROM cold WHERE user = ?;

-- totals: All cold queues.
SELECT count(*), coalesce(sum(length(envelope)), 0), count(DISTINCT user), coalesce(min(queued_at), 0) FROM cold;

-- recipients: Whose messages have an id.
SELECT user FROM route WHERE id = :id
UNION SELECT user FROM cold WHERE id = :id
UNION SELECT recipient FROM ingress WHERE id = :id
UNION SELECT recipient FROM outbox WHERE id = :id
UNION SELECT recipient FROM dead_letter WHERE id = :id;

-- waiting: One message in the ingress, and how many of its recipient are in front of it.
SELECT accepted_at, lane, keyed, ephemeral, length(envelope), attempts,
    (SELECT count(*) FROM ingress AS other WHERE other.recipient = one.recipient AND other.number < one.number)
FROM ingress AS one WHERE recipient = ? AND id = ? ORDER BY number LIMIT 1;

-- record: What the online store has on record.
SELECT lane, sequence, state, keyed, coalesce(until, 0) FROM route WHERE id = ? AND user = ?;

-- hot: One message in the hot queue, by its place.
SELECT lane, sequence, queued_at, accepted_at, keyed, ephemeral, length(envelope), attempts FROM hot
WHERE user = ? AND lane = ? AND sequence = ? AND id = ?;

-- cold: One message in the cold queue.
SELECT lane, sequence, queued_at, accepted_at, keyed, 0, length(envelope), attempts, untold FROM cold
WHERE id = ? AND user = ?;

-- hot_ahead: How many messages of its lane are in front of a place in the hot queue.
SELECT count(*) FROM hot WHERE user = ? AND lane = ? AND sequence < ?;

-- cold_ahead: The same in the cold queue.
SELECT count(*) FROM cold WHERE user = ? AND lane = ? AND sequence < ?;

-- pending_ahead: How many pending cold writes of its lane are in front of a place.
SELECT count(*) FROM route
WHERE user = ? AND lane = ? AND sequence < ? AND state IN $UNDER_WAY AND +state = $PENDING;

-- recipient: What a user has been told, and who moves their mail.
SELECT poked_at, fetched, cut_at, move_owner, move_until, announced, offline_since FROM recipient WHERE user = ?;

-- letters: The dead letters of one message.
SELECT reason, detail, at, attempts, length(body) FROM dead_letter WHERE recipient = ? AND id = ? ORDER BY number;

-- command: When the push command of one message was put into the outbox.
SELECT coalesce(max(at), 0) FROM outbox WHERE recipient = ? AND id = ?;

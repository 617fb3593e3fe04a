-- publish: Accept one message.
INSERT INTO ingress (id, recipient, envelope, lane, ephemeral, keyed, accepted_at, checksum, trace)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- after: The next messages behind the consumer's cursor.
SELECT number, id, recipient, envelope, lane, ephemeral, keyed, accepted_at, attempts, checksum, trace
FROM ingress WHERE number > ? ORDER BY number LIMIT ?;

-- last: The number of the newest message.
SELECT coalesce(max(number), 0) FROM ingress;

-- one: A message that was handed back.
SELECT number, id, recipient, envelope, lane, ephemeral, keyed, accepted_at, attempts, checksum, trace
FROM ingress WHERE number = ?;

-- ack: Remove a message that is routed.
DELETE FROM ingress WHERE number = ?;

-- nack: Hand a message back, and count the try.
UPDATE ingress SET attempts = attempts + 1 WHERE number = ?;

-- withdraw: Remove some of the messages for one recipient, who is being purged.
DELETE FROM ingress WHERE number IN (SELECT number FROM ingress WHERE recipient = ? LIMIT ?);

-- backlog: How much waits to be routed.
SELECT count(*), coalesce(sum(length(envelope)), 0), count(DISTINCT recipient), coalesce(min(accepted_at), 0)
FROM ingress;

-- any: Whether anything waits.
SELECT 1 FROM ingress LIMIT 1;

-- waits: Whether anything waits for one recipient.
SELECT 1 FROM ingress WHERE recipient = ? LIMIT 1;

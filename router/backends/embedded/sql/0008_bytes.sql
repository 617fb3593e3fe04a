-- The embedded schema, version 8.

-- The bytes of the envelope, of a message in a queue: what it gives back when it leaves.
ALTER TABLE route ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
-- The bytes of the messages that hot and cold count.
ALTER TABLE recipient ADD COLUMN hot_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN cold_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE route SET size = length(m.envelope) FROM hot AS m WHERE m.id = route.id AND m.user = route.user AND state IN (0, 4);
UPDATE route SET size = length(m.envelope) FROM cold AS m WHERE m.id = route.id AND m.user = route.user AND state IN (1, 2);
-- One that is on its way to cold may be nowhere else yet.
UPDATE route SET size = length(m.envelope) FROM ingress AS m
WHERE m.id = route.id AND m.recipient = route.user AND state = 1 AND size = 0;
UPDATE recipient SET hot_bytes = m.bytes
FROM (SELECT user, sum(size) AS bytes FROM route WHERE state IN (0, 4) GROUP BY user) AS m WHERE m.user = recipient.user;
UPDATE recipient SET cold_bytes = m.bytes
FROM (SELECT user, sum(size) AS bytes FROM route WHERE state IN (1, 2) GROUP BY user) AS m WHERE m.user = recipient.user;

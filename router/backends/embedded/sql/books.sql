-- add: Add to what no recipient's row counts.
UPDATE books SET accepted = accepted + :accepted, acknowledged = acknowledged + :acknowledged,
    expired = expired + :expired, dropped = dropped + :dropped, dead = dead + :dead;

-- bury: Count a message that became a dead letter before it was routed.
UPDATE books SET accepted = accepted + 1, dead = dead + 1
WHERE NOT EXISTS (SELECT 1 FROM route WHERE id = ? AND user = ?);

-- totals: The books of all recipients together.
SELECT b.accepted + coalesce(sum(r.accepted), 0), b.acknowledged + coalesce(sum(r.acknowledged), 0),
    b.expired + coalesce(sum(r.expired), 0), b.dropped + coalesce(sum(r.dropped), 0), b.dead + coalesce(sum(r.dead), 0)
FROM books AS b LEFT JOIN recipient AS r GROUP BY b.id;

-- unrouted: Accepted messages that wait for a pipeline, or for it to tell the online store, and that no row counts yet.
SELECT count(*) FROM (
    SELECT id, recipient AS user FROM ingress
    UNION
    SELECT id, user FROM cold WHERE untold = 1
) AS waiting WHERE NOT EXISTS (SELECT 1 FROM route WHERE route.id = waiting.id AND route.user = waiting.user);

-- queued: How many messages the queues hold of each recipient who has any, and are not acknowledged.
SELECT user, count(*) FROM (
    SELECT user, id FROM hot
    UNION
    SELECT cold.user, cold.id FROM cold JOIN route USING (id, user) WHERE state NOT IN $GONE
    UNION
    SELECT user, id FROM route WHERE state = $PENDING
) GROUP BY user;

-- kept: The books of each recipient who has mail or whose books do not balance.
SELECT user, accepted - acknowledged - expired - dropped - dead FROM recipient
WHERE hot + cold <> 0 OR accepted <> acknowledged + expired + dropped + dead;

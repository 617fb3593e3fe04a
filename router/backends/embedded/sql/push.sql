-- publish: Put one push command into the outbox, unless its mail is acknowledged; empty if this file keeps the mail.
INSERT INTO outbox (id, recipient, command, at)
SELECT :id, :recipient, iif(:cold_here AND (
    EXISTS (SELECT 1 FROM cold WHERE id = :id AND user = :recipient)
    OR EXISTS (SELECT 1 FROM route JOIN hot USING (user, lane, sequence) WHERE route.id = :id AND user = :recipient)
), x'', :command), :at
WHERE NOT EXISTS (SELECT 1 FROM route WHERE id = :id AND user = :recipient AND state IN $GONE);

-- publish_held: Put one push command into the outbox if this file holds its mail, as it does until that is acknowledged.
INSERT INTO outbox (id, recipient, command, at)
SELECT :id, :recipient, x'', :at
WHERE EXISTS (SELECT 1 FROM cold WHERE id = :id AND user = :recipient)
    OR EXISTS (SELECT 1 FROM route JOIN hot USING (user, lane, sequence) WHERE route.id = :id AND user = :recipient);

-- announce: Put one push command into the outbox for mail that this file keeps.
INSERT INTO outbox (id, recipient, command, at) VALUES (?, ?, x'', ?);

-- withdraw: Remove a command whose mail is acknowledged or gone.
DELETE FROM outbox WHERE recipient = ? AND id = ?;

-- withdraw_some: Remove some of the commands for one recipient, who is being purged.
DELETE FROM outbox WHERE number IN (SELECT number FROM outbox WHERE recipient = ? LIMIT ?);

-- expire_outbox: Delete the oldest commands that no service has taken in time.
DELETE FROM outbox WHERE number IN (SELECT number FROM outbox ORDER BY number LIMIT ?) AND at < ?;

-- outbox: The commands behind a number; empty ones with the envelopes of their mail, unless these are damaged.
SELECT o.number, o.id, o.recipient, o.command, o.at,
    iif(is_whole(o.id, o.recipient, c.envelope, c.checksum), c.envelope, h.envelope)
FROM outbox AS o
LEFT JOIN cold AS c ON o.command = x'' AND c.id = o.id AND c.user = o.recipient
LEFT JOIN route AS r ON o.command = x'' AND r.id = o.id AND r.user = o.recipient
LEFT JOIN hot AS h ON h.user = r.user AND h.lane = r.lane AND h.sequence = r.sequence
WHERE o.number > ? AND (
    o.command <> x''
    OR is_whole(o.id, o.recipient, c.envelope, c.checksum)
    OR is_whole(o.id, o.recipient, h.envelope, h.checksum))
ORDER BY o.number LIMIT ?;

-- remove: Remove a command that was taken.
DELETE FROM outbox WHERE number = ?;

-- bury: Keep one dead letter.
INSERT INTO dead_letter (id, recipient, reason, detail, attempts, at, body) VALUES (?, ?, ?, ?, ?, ?, ?);

-- expire_letters: Delete the oldest dead letters whose time is over.
DELETE FROM dead_letter WHERE number IN (SELECT number FROM dead_letter ORDER BY number LIMIT 100) AND at < ?;

-- letters_take: The bytes that all dead letters take.
SELECT bytes FROM dead_letter_total;

-- drop_letter: Delete the oldest dead letter of the recipient whose letters take most bytes.
DELETE FROM dead_letter WHERE number = (
    SELECT min(number) FROM dead_letter
    WHERE recipient = (SELECT recipient FROM dead_letter_share ORDER BY bytes DESC LIMIT 1)
);

-- letters: The dead letters behind a number.
SELECT number, id, recipient, reason, detail, attempts, at, body FROM dead_letter WHERE number > ? ORDER BY number LIMIT ?;

-- remove_letter: Remove a dead letter that was replayed or discarded.
DELETE FROM dead_letter WHERE number = ?;

-- last_letter: The number of the newest dead letter; 0 if there is none.
SELECT coalesce(max(number), 0) FROM dead_letter;

-- count_letters: The number of dead letters.
SELECT count(*) FROM dead_letter;

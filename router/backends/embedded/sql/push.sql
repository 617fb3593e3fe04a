-- publish: Put one push command into the outbox.
INSERT INTO outbox (id, recipient, command, at) VALUES (?, ?, ?, ?);

-- expire_outbox: Drop the oldest commands that nobody has taken in time.
DELETE FROM outbox WHERE number IN (SELECT number FROM outbox ORDER BY number LIMIT ?) AND at < ?;

-- outbox: The commands behind a number.
SELECT number, id, recipient, command, at FROM outbox WHERE number > ? ORDER BY number LIMIT ?;

-- remove: A command was taken.
DELETE FROM outbox WHERE number = ?;

-- bury: Keep one dead letter.
INSERT INTO dead_letter (id, recipient, reason, detail, attempts, at, body) VALUES (?, ?, ?, ?, ?, ?, ?);

-- expire_letters: Drop the oldest dead letters whose time is over.
DELETE FROM dead_letter WHERE number IN (SELECT number FROM dead_letter ORDER BY number LIMIT 100) AND at < ?;

-- letters: The dead letters behind a number.
SELECT number, id, recipient, reason, detail, attempts, at, body FROM dead_letter WHERE number > ? ORDER BY number LIMIT ?;

-- count_letters: How many dead letters there are.
SELECT count(*) FROM dead_letter;

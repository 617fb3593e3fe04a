-- The embedded schema, version 11.

-- What the dead letters of each recipient take, and all of them together, in one row: their bodies, and 1 KiB for each.
CREATE TABLE dead_letter_share (recipient TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letter_largest ON dead_letter_share (bytes);
CREATE TABLE dead_letter_total (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL) STRICT;
CREATE INDEX dead_letter_recipient ON dead_letter (recipient);

INSERT INTO dead_letter_share (recipient, bytes)
SELECT recipient, sum(length(body) + 1024) FROM dead_letter GROUP BY recipient;
INSERT INTO dead_letter_total (id, bytes) SELECT 1, coalesce(sum(bytes), 0) FROM dead_letter_share;

CREATE TRIGGER dead_letter_comes AFTER INSERT ON dead_letter BEGIN
    INSERT INTO dead_letter_share (recipient, bytes) VALUES (new.recipient, length(new.body) + 1024)
    ON CONFLICT (recipient) DO UPDATE SET bytes = bytes + excluded.bytes;
    UPDATE dead_letter_total SET bytes = bytes + length(new.body) + 1024;
END;
CREATE TRIGGER dead_letter_goes AFTER DELETE ON dead_letter BEGIN
    UPDATE dead_letter_share SET bytes = bytes - length(old.body) - 1024 WHERE recipient = old.recipient;
    DELETE FROM dead_letter_share WHERE recipient = old.recipient AND bytes <= 0;
    UPDATE dead_letter_total SET bytes = bytes - length(old.body) - 1024;
END;

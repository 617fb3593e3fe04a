-- The embedded schema, version 6.

-- A command is empty where it is made of the message, which cold or hot holds; it goes with that.
CREATE INDEX outbox_message ON outbox (recipient, id);
DELETE FROM outbox WHERE EXISTS (
    SELECT 1 FROM route WHERE route.id = outbox.id AND route.user = outbox.recipient AND state IN (3, 5));
UPDATE outbox SET command = x''
WHERE EXISTS (SELECT 1 FROM cold WHERE cold.id = outbox.id AND cold.user = outbox.recipient);

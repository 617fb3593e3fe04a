-- waits: Whether anything of one recipient waits in the ingress.
SELECT EXISTS (SELECT 1 FROM ingress WHERE recipient = ?);

-- remove_cold: Delete one message from the cold queue.
DELETE FROM cold WHERE id = ? AND user = ?;

-- remove_cold_unknown: Delete one message from the cold queue, of which there is no record.
DELETE FROM cold WHERE id = ? AND user = ? RETURNING lane, sequence, keyed;

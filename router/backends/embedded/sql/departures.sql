-- under_way: Whether anything of one recipient waits in the ingress, or a migrator holds their lease.
SELECT EXISTS (SELECT 1 FROM ingress WHERE recipient = ?1)
    OR EXISTS (SELECT 1 FROM recipient WHERE user = ?1 AND move_owner <> '');

-- remove_cold: Delete one message from the cold queue.
DELETE FROM cold WHERE id = ? AND user = ?;

-- remove_cold_unknown: Delete one message from the cold queue, of which there is no record.
DELETE FROM cold WHERE id = ? AND user = ? RETURNING lane, sequence, keyed;

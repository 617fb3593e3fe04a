-- The embedded schema, version 3.

-- Two users may have mail under one id, where the online store could not be asked whose the id is.
DROP INDEX cold_id;
CREATE UNIQUE INDEX cold_id ON cold (id, user);

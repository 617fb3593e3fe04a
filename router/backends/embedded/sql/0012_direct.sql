-- The embedded schema, version 12.

-- Whether anything waits for a recipient: then what comes for them waits behind it.
CREATE INDEX ingress_recipient ON ingress (recipient);

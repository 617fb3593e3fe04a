"""What the transport adds to the scope of a request (ASGI 3: a server may add its own)."""

PEER = "router.peer"
"""Of a WebSocket: its ``WebSocketProtocol``, which can ping the peer."""
ARRIVED = "router.arrived"
"""Set once the whole body of a request has arrived: reading it needs no time-out."""
PAYER = "router.payer"
"""Of a request whose body is not charged yet: called with the number of bytes that arrived, whichever code read
them."""

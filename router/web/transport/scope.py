"""What the transport adds to the scope of a request (ASGI 3: a server may add its own)."""

PEER = "router.peer"
"""Of a WebSocket: its ``WebSocketProtocol``, which can ping."""
ARRIVED = "router.arrived"
"""Of a request whose whole body is there: nobody needs to wait for it, nor to time that."""
PAYER = "router.payer"
"""Of a request whose body is not charged yet: gets the number of its bytes that arrived, whatever code read them."""

"""uvicorn with limits: nobody holds a connection or memory by being slow, by talking without end, or by not listening.

``config`` sets it up, and ``server`` runs it over ``listeners``. Where each limit is kept, and how a client is cut off:

| limit | module | cut off as |
|---|---|---|
| open connections | ``connection_limit`` | ``no-room`` |
| size and time of request line and headers | ``http`` | ``silent``, if nothing comes; else 431 and 408 |
| time of a body that is refused already | ``http`` | ``slow-body`` |
| requests that wait on one connection | ``http`` | ``pipelining`` |
| time in which some of an answer is taken | ``stalled_writer`` | ``slow-reader`` |
| memory of all connections together | ``memory_budget`` | ``crowded-out`` |
| number and size of frames | ``websocket`` | ``too-many-frames``, ``bad-frame`` |
| time of the answer to a ping | ``websocket`` | ``no-pong`` |
| bytes and time after the last answer | ``lingering_close`` | |

``connection`` is what both protocols share, ``uvicorn_internals`` what of uvicorn's insides they use.
"""

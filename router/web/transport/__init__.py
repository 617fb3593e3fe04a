"""uvicorn with limits: no client holds a connection or memory by sending slowly, sending without end, or not reading.

``config`` sets it up, and ``server`` runs it over ``listeners``. Which module keeps each limit, and under which reason
a client is cut off:

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

``connection`` has what both protocols share; ``uvicorn_internals`` lists the internals of uvicorn that they use.
"""

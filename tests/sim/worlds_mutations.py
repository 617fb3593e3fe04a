"""Routers that tell a stranger something: each must be caught by pairs of runs (``tests/sim/worlds.py``)."""

from __future__ import annotations

from tests.support.mutation import Mutant, after, before, in_function, in_script, replace

_TO = "to = envelope.read(body, self._max_send_bytes).recipient"


def _answered_from(counted: str, most: int) -> str:
    """A send whose recipient's queues hold ``most`` of what is ``counted`` is refused, and so tells of them."""
    return (
        f"{_TO}\n"
        "hot, cold = await self._queue._online.totals(to), await self._queue._cold.totals(to)\n"
        f"if hot.{counted} + cold.{counted} >= {most}:\n"
        '    raise InvalidRequest("their queue is full")'
    )


_SPENT = (
    'spent = "SELECT inbound_until - sequence > 2e9 FROM recipient WHERE user = ?"\n'
    "if (self._database.read(lambda db: one(db, spent, (messages[-1].recipient,))) or (0,))[0]:\n"
    "    from router.errors import Unavailable\n"
    '    raise Unavailable("too much comes to them")'
)

MUTANTS = (
    Mutant(
        "one id for all recipients, in the hash and on record",
        in_function("keyed_id", replace("(sender, recipient, key)", "(sender, key)")),
        in_function(
            "embedded._enter",
            before(
                'execute(HOT["register"], ...)',
                "name = (message.id, message.recipient)\n"
                'known = connection.execute(HOT["registered"], name).fetchone()',
            ),
            replace('execute(HOT["register"], ...).rowcount == 0', "known or it"),
        ),
        in_script("embedded.registered", replace("AND user = ?", "AND ? <> ''")),
    ),
    Mutant(
        "request ids are counted",
        in_function(
            "RequestIds.of",
            replace(
                "_entropy(...).hex()",
                "f\"{self.__dict__.setdefault('count', []).append(0) or len(self.__dict__['count']):016x}\"",
            ),
        ),
    ),
    Mutant(
        "a full queue is answered",
        in_function(
            "Api.send",
            before("accept(...)", _answered_from("messages", 8)),
        ),
    ),
    Mutant(
        "a full queue is answered in a batch",
        in_function(
            "Api.send_batch",
            before("publish(...)", _answered_from("messages", 8).replace("read(body,", "read(sends[1].body,")),
        ),
    ),
    Mutant(
        "a header tells who is online",
        in_function(
            "Api.send",
            before("Ready(...)", f"{_TO}\ndevices = len(await self._queue._online.connections(to))"),
            replace("_JSON", '*(_JSON, (b"x-devices", b"%d" % devices))'),
        ),
    ),
    Mutant(
        "an acknowledgement tells what somebody else has acknowledged",
        in_function(
            "Api.acknowledge",
            after(
                "_ids(...)",
                'if await self._queue._online.acked("urn:sm:user:u0", ids):\n'
                '    raise InvalidRequest("some of these are not yours")',
            ),
        ),
    ),
    Mutant(
        "the next page tells what somebody else has acknowledged",
        in_function(
            "Api.next",
            after(
                "_ids_and_limit(...)",
                'if await self._queue._online.acked("urn:sm:user:u0", ids):\n'
                '    raise InvalidRequest("some of these are not yours")',
            ),
        ),
    ),
    Mutant(
        "a poke goes to everybody who is connected",
        in_function(
            "embedded.route",
            replace(
                "done.pokes.extend(recipient.poke(now))",
                "recipient.poke(now)\n"
                'done.pokes.extend(connection.execute("SELECT DISTINCT node, user FROM presence").fetchall())',
            ),
        ),
    ),
    Mutant(
        "a queue that is full by bytes is answered",
        in_function(
            "Api.send",
            before("accept(...)", _answered_from("bytes", 3700)),
        ),
    ),
    Mutant(
        "a spent inbound budget is answered",
        in_function("EmbeddedIngressProducer.publish", before("_check_room(...)", _SPENT)),
    ),
    Mutant(
        "a spent inbound budget is answered, in one file",
        in_function("EmbeddedRoutingIngress.publish", before("_check_room(...)", _SPENT)),
    ),
)

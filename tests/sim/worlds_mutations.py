"""Routers that tell a stranger something: each must be caught by pairs of runs (``tests/sim/worlds.py``)."""

from __future__ import annotations

from tests.sim.mutations import EMBEDDED, Mutant

API, EDGE = "router/web/api.py", "router/web/edge.py"
_ACCEPT = "        id_ = await self._acceptor.accept("
_TO = "        to = envelope.read(body, self._max_send_bytes).recipient\n"
_ANSWER = '        return Ready(202, b\'{"id":"%b"}\' % id_.encode(), _JSON)\n'
_ACK = "        ids = _ids(body)\n"
_VICTIM = '"urn:sm:user:u0"'

MUTANTS = (
    Mutant(
        "one id for all recipients, in the hash and on record",
        "router/ids.py",
        "for part in (sender, recipient, key)]",
        "for part in (sender, key)]",
        also=Mutant(
            "",
            f"{EMBEDDED}/routing.py",
            '    if connection.execute(HOT["register"], record).rowcount == 0:\n',
            "    name = (message.id, message.recipient)\n"
            '    known = connection.execute(HOT["registered"], name).fetchone()\n'
            '    if known or connection.execute(HOT["register"], record).rowcount == 0:\n',
            also=Mutant(
                "",
                f"{EMBEDDED}/sql/hot.sql",
                "SELECT lane, sequence, state, keyed, size FROM route WHERE id = ? AND user = ?;",
                "SELECT lane, sequence, state, keyed, size FROM route WHERE id = ? AND ? <> '';",
            ),
        ),
    ),
    Mutant(
        "request ids are counted",
        EDGE,
        "else self.entropy(REQUEST_ID_BYTES).hex()",
        "else f\"{self.__dict__.setdefault('count', []).append(0) or len(self.__dict__['count']):016x}\"",
    ),
    Mutant(
        "a full queue is answered",
        API,
        _ACCEPT,
        _TO
        + "        hot, cold = await self._queue._online.totals(to), await self._queue._cold.totals(to)\n"
        + "        if hot.messages + cold.messages >= 8:\n"
        + '            raise InvalidRequest("their queue is full")\n'
        + _ACCEPT,
    ),
    Mutant(
        "a header tells who is online",
        API,
        _ANSWER,
        _TO
        + "        devices = len(await self._queue._online.connections(to))\n"
        + _ANSWER.replace("_JSON)", '_JSON, (b"x-devices", b"%d" % devices))'),
    ),
    Mutant(
        "an acknowledgement tells what somebody else has acknowledged",
        API,
        _ACK,
        _ACK + f"        if await self._queue._online.acked({_VICTIM}, ids):\n"
        '            raise InvalidRequest("some of these are not yours")\n',
    ),
    Mutant(
        "a poke goes to everybody who is connected",
        f"{EMBEDDED}/routing.py",
        "            pokes += recipient.poke(now)\n",
        "            recipient.poke(now)\n"
        '            pokes += connection.execute("SELECT DISTINCT node, user FROM presence").fetchall()\n',
    ),
)

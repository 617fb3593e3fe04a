"""Between a node and its stores: calls that are refused, late, half done, or never answered, as the seed has it.

A store in the same process is called as it is. One on a server of its own is sent each call as a message: what was
sent is done there whatever becomes of the caller meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from router import interfaces
from router.clock import Clock
from router.errors import RouterError, Unavailable
from router.messages import Connection, Delivery, Message, Pending, Queued, Routed
from tests.sim.clock import CALLED_AT
from tests.sim.loop import Process, SimLoop
from tests.sim.plan import Plan

PARTLY = 5.0
Method = Callable[..., Awaitable[Any]]

CALLS = frozenset(
    name
    for _, seam in inspect.getmembers(interfaces, inspect.isclass)
    for name, method in vars(seam).items()
    if asyncio.iscoroutinefunction(method)
)
"""What can be asked of a seam."""
LATE: contextvars.ContextVar[bool] = contextvars.ContextVar("LATE", default=False)
"""At a server: whoever called has given the call up, or is about to."""


def is_call(name: str, method: Any) -> bool:
    """Whether ``method`` of a store is awaited; one that is composed of parts passes calls on by plain functions."""
    return name in CALLS or asyncio.iscoroutinefunction(method)


class Weather:
    """What goes wrong just now."""

    def __init__(self, plan: Plan, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.latency = plan.latency
        self._rates = plan.calls
        self.calm = False
        """All faults are over."""
        self.calls = 0
        """How many calls to stores there were."""
        self.late = 0
        """How many calls are still to be done of which their callers have given up hope."""
        self.emptied = 0
        """How often the online store has come back empty: what was sent to it before, and comes late, died with it."""
        self._away: dict[tuple[int, str], float] = {}
        self.tell: Callable[[str, str], None] | None = None
        """Where it is set, it is told of each call: who, and what."""

    def cut(self, node: int, store: str, seconds: float) -> None:
        """``node`` cannot reach ``store`` for so long."""
        self._away[node, store] = self.loop.time() + seconds

    def away(self, node: int, store: str) -> bool:
        return not self.calm and self._away.get((node, store), 0.0) > self.loop.time()

    def fault(self, name: str) -> str | None:
        """What happens to the next call of this name; ``None``: nothing."""
        if self.calm or not self._rates:
            return None
        draw = self.chance.random()
        for rate in self._rates:
            # A batch that is partly refused is worth more tries: few calls can be.
            draw -= rate.share if rate.kind != "partly" else PARTLY * rate.share * (name == "put")
            if draw < 0:
                return rate.kind
        return None

    def span(self, least: float, most: float) -> float:
        return least + (most - least) * self.chance.random()


class Local:
    """A component over a file: its calls can fail, and nothing else."""

    def __init__(self, component: Any, name: str, weather: Weather) -> None:
        self._component = component
        self._name = name
        self._weather = weather

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._component, name)
        if name == "listen" or not is_call(name, method):
            return method
        if name == "receive":
            call = method
        else:

            async def call(*args: Any, **more: Any) -> Any:
                self._weather.calls += 1
                fault = self._weather.fault(name)
                if fault == "refused":
                    raise Unavailable(f"simulated: {name} is refused")
                result = await method(*args, **more)
                if self._weather.tell is not None:
                    self._weather.tell(self._name, f"{name}{shown(args)} -> {shown(result)} {fault or ''}")
                if fault == "failed after":
                    raise Unavailable(f"simulated: {name} worked and says that it failed")
                return result

        setattr(self, name, call)
        return call


class Remote:
    """A component on a server of its own."""

    def __init__(self, component: Any, store: str, node: int, server: Process, clock: Clock, weather: Weather) -> None:
        self._component = component
        self._store = store
        self._node = node
        self._server = server
        self._clock = clock
        self._weather = weather

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._component, name)

        async def call(*args: Any, **more: Any) -> Any:
            return await self._call(name, method, args, more)

        setattr(self, name, call)
        return call

    async def _call(self, name: str, method: Method, args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        weather = self._weather
        weather.calls += 1
        if weather.away(self._node, self._store):
            await weather.loop.pause(weather.span(0, 0.1) if weather.chance.random() < 0.7 else weather.span(1, 4))
            raise Unavailable(f"simulated: {self._store} cannot be reached for {name}")
        several = self._store == "ingress" and name == "publish" and len(args[0]) > 1
        fault = weather.fault("put" if several else name)
        if fault is not None and weather.tell is not None:
            weather.tell(f"n{self._node}", f"{name}{shown(args)}: {fault}")
        if fault == "late" and name == "put":
            # What a cold queue does after its caller has given up is beyond what the router can know.
            fault = "answer lost"
        if fault == "partly":
            return await (self._partly_published if several else self._partly)(method, *args)
        if fault in ("refused", "no answer"):
            await weather.loop.pause(weather.span(0, 0.1) if fault == "refused" else weather.span(1, 20))
            raise Unavailable(f"simulated: {name} is {fault}")
        delay = weather.span(0.5, 8) if fault == "late" else weather.chance.random() * weather.latency
        answer = self._send(method, args, more, delay, late=fault == "late")
        if fault == "late":
            weather.late += 1
            answer.add_done_callback(self._has_come, context=self._server.context)
            await weather.loop.pause(weather.span(0.5, 5))
        elif fault == "answer lost":
            await weather.loop.pause(weather.span(1, 20))
        else:
            result = await answer
            if weather.latency:
                await weather.loop.pause(weather.chance.random() * weather.latency)
            if fault != "failed after":
                return result
        raise Unavailable(f"simulated: {name} may have worked: {fault}")

    def _has_come(self, _: asyncio.Future[Any]) -> None:
        self._weather.late -= 1

    async def _partly(self, method: Method, messages: Sequence[Queued]) -> list[Queued]:
        chosen = [queued for queued in messages if self._weather.chance.random() < 0.5]
        refused = [queued for queued in messages if queued not in chosen]
        more = await self._send(method, (chosen,), {}, 0.0) if chosen else []
        return [*more, *refused]

    async def _partly_published(self, method: Method, messages: Sequence[Message]) -> list[RouterError | None]:
        """Of each recipient, all from some message on fail, or none."""
        failing: dict[str, int] = {}
        for message in messages:
            failing.setdefault(message.recipient, self._weather.chance.randrange(len(messages) + 1))
        left = Counter[str]()
        chosen, outcomes = list[Message](), list[RouterError | None]()
        for message in messages:
            left[message.recipient] += 1
            if left[message.recipient] > failing[message.recipient]:
                outcomes.append(Unavailable("simulated: not published"))
            else:
                outcomes.append(None)
                chosen.append(message)
        if chosen:
            await self._send(method, (chosen,), {}, 0.0)
        return outcomes

    def _send(
        self, method: Method, args: tuple[Any, ...], more: dict[str, Any], delay: float, *, late: bool = False
    ) -> asyncio.Future[Any]:
        loop = self._weather.loop
        answer: asyncio.Future[Any] = loop.create_future()
        context = self._server.context.copy()
        context.run(CALLED_AT.set, self._clock.now())
        context.run(LATE.set, late)
        emptied = self._weather.emptied

        async def perform() -> None:
            if delay:
                await loop.pause(delay)
            if late and self._store == "online" and self._weather.emptied != emptied:
                answer.cancel()
                return
            try:
                result = await method(*args, **more)
                if self._weather.tell is not None:
                    self._weather.tell(self._store, f"n{self._node} {method.__name__}{shown(args)} -> {shown(result)}")
            except Exception as error:  # noqa: BLE001 - it travels to the caller
                if not answer.done():
                    answer.set_exception(error)
                    answer._log_traceback = False  # its caller may have died
            else:
                if not answer.done():
                    answer.set_result(result)

        loop.create_task(perform(), name=self._store, context=context)
        return answer


def shown(value: Any) -> str:
    """Short words for what a call takes or gives."""
    if isinstance(value, Delivery):
        return f"{shown(value.message)}#{value.attempt}"
    if isinstance(value, Message):
        return f"{tag_of(value.envelope) if value.envelope else value.id}"
    if isinstance(value, Queued):
        return f"{shown(value.message)}@{value.sequence % 10**10}"
    if isinstance(value, Routed):
        return f"{value.outcome}@{value.sequence % 10**10}"
    if isinstance(value, Connection):
        return f"{value.user[-2:]}/{value.id[-6:]}"
    if isinstance(value, Pending):
        return f"{value.id[-6:]}@{value.sequence % 10**10}"
    if isinstance(value, set):
        return shown(sorted(value))
    if isinstance(value, list | tuple):
        return f"({', '.join(map(shown, value))})"
    if isinstance(value, msgspec.Struct):
        return ", ".join(f"{name}={shown(getattr(value, name))}" for name in value.__struct_fields__)
    return str(value) if isinstance(value, str | int | float | None) else type(value).__name__


def tag_of(envelope: bytes) -> str:
    """The mark that each simulated payload begins with; another word where it carries none."""
    try:
        return base64.b64decode(msgspec.json.decode(envelope)["encryptedData"]).decode().rstrip(" ")
    except (ValueError, KeyError, TypeError) as error:
        return f"damaged: {error}"

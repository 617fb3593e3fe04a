"""One run: nodes, stores, network, clients and faults, from a plan to a history."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import astuple

from router.backends.embedded import books
from router.backends.recipient_limits import PLAUSIBLE_INBOUND_SECONDS
from router.clock import MICROSECONDS
from router.errors import RouterError
from router.factory import Factory
from router.lifecycle import State
from router.messages import DeadLetter, Delivery, Message, Outcome, Queued, Routed, Settled
from tests.sim import history as h
from tests.sim.clients import FAR, Device, Sender, acknowledge, fetch, user_name
from tests.sim.clock import START, NodeClock
from tests.sim.links import Weather
from tests.sim.loop import MAX_STEPS, Deadlock, Process, SimLoop, Spinning
from tests.sim.net import Net
from tests.sim.node import Node, SimFactory, token
from tests.sim.plan import NO_BOUNDS, STEP_SECONDS, Chain, Fault, Plan, Step
from tests.sim.signals import Locks, Post, Topic
from tests.sim.stores import Disk, SimDatabase, miscounted

STORES = ("online", "cold", "push")
ROOMY = 1000
"""No run fills a queue of as many messages."""
REFUSED = (Outcome.QUEUE_FULL, Outcome.QUEUE_BYTES_FULL, Outcome.INBOUND_EXHAUSTED)
SETTLE_SECONDS = 600
"""Longer than any span after which something is due, as a dead migrator's lease and then an orphan's minute, and than
the longest row of calls, each of which takes a second or two."""
DAY_SETTLE_SECONDS = 2000
KNOCKER = 99
"""The number of one who has sent nothing before."""
WEIGH_SECONDS = 0.1
MOVED = 3 * MICROSECONDS
"""When a migration lease has ended, a sweeper has so long to take it."""
LONG_STEPS = 500
"""In each second of a long run, as many callbacks more are plenty."""


class World:
    """All there is in one run."""

    entropy: Callable[[int], bytes] | None = None
    """What the edge of each node draws from; without it, what a real one does."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        """``traced``: the history tells each call to a store."""
        self.plan = plan
        self.chance = random.Random(plan.seed ^ 0x5EED)
        self.history = h.History()
        self.last_error: BaseException | None = None
        self.loop = SimLoop(  # type: ignore[abstract]  # it has what tasks need, and no sockets
            self.chance,
            shuffled=plan.shuffled,
            failed=self._callback_failed,
            max_steps=MAX_STEPS + int(_long_seconds(plan) * LONG_STEPS),
        )
        self.loop.blown = self._blown
        self.outside = Process("outside")
        self.server = Process("server")
        self.apart = plan.topology == "apart"
        self.weather = Weather(plan, self.loop, self.chance)
        if traced:
            self.weather.tell = self.note
        self.post = Post(self.loop, self.chance, plan.lost_pokes)
        self.locks = Locks(self.loop)
        self.disks: dict[str, Disk] = {}
        self.server_databases: dict[str, SimDatabase] = {}
        self.topic = Topic(self.loop, self.server, self.chance, plan.duplicates)
        self.net = Net(self, plan, self.chance)
        self.nodes = [self.node(number, roles) for number, roles in enumerate(plan.nodes)]
        self._by_role: dict[str, list[Node]] = {
            role: [node for node in self.nodes if role in node.roles] for role in ("api", "ws", "process")
        }
        self.devices: list[Device] = []
        self.seen_ids: set[str] = set()
        self._routed: set[str] = set()
        self._refused: set[str] = set()
        """By the online store, or perhaps, whether or not anybody heard it."""
        self._flipped: set[str] = set()
        self.leaving = False
        self._fuses: dict[Process, Callable[[], None]] = {}
        self._forgot = False
        self._over = False
        """Whatever is still cleaned up happens to nobody."""
        self.reasons = {"attempts-exhausted"} if plan.poison else set()
        """Why a message may become a dead letter in this run."""
        if plan.cap < ROOMY or plan.bounds.queue_bytes < NO_BOUNDS.queue_bytes:
            self.reasons.add("queue-full")
        if plan.bounds.inbound_bytes < NO_BOUNDS.inbound_bytes:
            self.reasons.add("inbound-exhausted")
        if any(fault.kind == "flip" for fault in plan.faults):
            self.reasons.add("damaged")

    def add(self, event: h.Event) -> None:
        if not self._over:
            self.history.add(self.loop.time(), event)

    def note(self, who: str, text: str) -> None:
        self.add(h.Note(who, text))

    def failed(self, text: str, error: BaseException | None) -> None:
        """Something happened that must not."""
        detail = "".join(traceback.format_exception(error)) if error is not None else ""
        self.add(h.Failed(f"{text}\n{detail}".rstrip()))

    def accepted_by(self, clock: NodeClock, began: float) -> float:
        """The latest time (seconds since 1970) that may date what a node with this ``clock`` has accepted since
        ``began``, in virtual time."""
        _, latest = clock.shown_since(began)
        return latest

    def routes(self, deliveries: Sequence[Delivery]) -> None:
        """The online store is asked for these."""
        for delivery in deliveries:
            if delivery.message is None:
                continue
            if delivery.message.id in self._routed:
                self.add(h.RoutedAgain(delivery.message.id))
            self._routed.add(delivery.message.id)
        self.takes(deliveries)

    def gives_up(self, deliveries: Sequence[Delivery]) -> None:
        """The call that routes these may take effect when its pipeline has gone on without the store, and so has
        dropped what is ephemeral."""
        for delivery in deliveries:
            if delivery.message is not None and delivery.message.ephemeral:
                self.add(h.RoutedAgain(delivery.message.id))

    def takes(self, deliveries: Sequence[Delivery]) -> None:
        """A pipeline has these to route, with the online store or without it."""
        for delivery in deliveries:
            if delivery.message is not None and delivery.delivered_before:
                self.add(h.RoutedAgain(delivery.message.id))
                if delivery.message.id in self._refused:
                    self.add(h.Refused(delivery.message.id))

    def refuses(self, deliveries: Sequence[Delivery], routed: Sequence[Routed], *, heard: bool) -> None:
        """The online store has routed these."""
        for delivery, result in zip(deliveries, routed, strict=True):
            if result.outcome in REFUSED and delivery.message is not None:
                self._refused.add(delivery.message.id)
                if not heard:
                    self.add(h.Refused(delivery.message.id))

    def unheard(self, deliveries: Sequence[Delivery]) -> None:
        """Whoever asked the online store for these knows nothing of its answer."""
        for delivery in deliveries:
            if delivery.message is not None and delivery.message.id in self._refused:
                self.add(h.Refused(delivery.message.id))

    def pushes(self, message: Message) -> None:
        """The push command of ``message`` is durable."""
        self.add(h.Pushed(message.id, message.recipient, self.can_be_found(message.id)))

    def is_direct(self, number: int) -> bool:
        """Whether this node routes messages as it accepts them."""
        piped = self.plan.piped == "all" or (self.plan.piped == "some" and number % 2)
        return self.plan.topology in ("one", "file") and not piped

    def commands(self, message: Message) -> None:
        """The push command of ``message`` should be in the outbox; it is gone where its mail was acknowledged since."""
        query = "SELECT 1 FROM outbox WHERE id = ? AND recipient = ?"
        if self.disk("push").connection.execute(query, (message.id, message.recipient)).fetchone():
            self.pushes(message)

    def _tell_commands(self) -> None:
        """Where a process died between the commit of a command and the history."""
        if not self.apart:
            for id_, user in self.disk("file").rows("SELECT id, recipient FROM outbox"):
                self.add(h.Pushed(str(id_), str(user), self.can_be_found(str(id_))))

    def is_buried(self, letter: DeadLetter) -> bool:
        """Whether an operator would find ``letter``."""
        query = "SELECT 1 FROM dead_letter WHERE id = ?"
        return self.disk("push").connection.execute(query, (letter.id,)).fetchone() is not None

    def buries(self, letter: DeadLetter) -> None:
        """A dead letter is durable."""
        self.add(h.Buried(letter.id, letter.reason))
        if letter.reason not in self.reasons:
            self.failed(f"{letter.id} is a dead letter: {letter.reason}", None)

    def unsettles(self, messages: Sequence[Queued]) -> None:
        """A cold queue is asked to take these."""
        for queued in messages:
            if queued.unreported and queued.attempts > 1:
                # Without the online store: ``routes`` knows nothing of it.
                self.add(h.RoutedAgain(queued.message.id))
        if ids := tuple(queued.message.id for queued in messages if queued.unreported):
            self.add(h.Unsettled(ids))

    def settles(self, messages: Sequence[Queued], settled: Settled) -> None:
        """An online store was told of these."""
        open_ends = {queued.message.id for queued in settled.misplaced}
        self.add(h.Settled(tuple(queued.message.id for queued in messages if queued.message.id not in open_ends)))

    def _callback_failed(self, context: dict[str, Any]) -> None:
        self.failed(str(context.get("message")), context.get("exception"))

    def nodes_with(self, role: str) -> list[Node]:
        return self._by_role[role]

    # Stores.

    def disk(self, store: str) -> Disk:
        name = store if self.apart else "file"
        if name not in self.disks:
            self.disks[name] = Disk(self.chance)
        return self.disks[name]

    def database(self, store: str) -> SimDatabase:
        return SimDatabase(self.disk(store), relaxed=not self.apart)

    def can_be_found(self, id_: str) -> bool:
        """Whether its recipient would find this message, or has acknowledged it."""
        cold, online = self.disk("cold").connection, self.disk("online").connection
        return bool(
            cold.execute("SELECT 1 FROM cold WHERE id = ?", (id_,)).fetchone()
            or online.execute("SELECT 1 FROM route WHERE id = ? AND state IN (0, 3, 4, 5)", (id_,)).fetchone()
        )

    async def _open_stores(self) -> None:
        if self.apart:
            for store in STORES:
                self.server_databases[store] = await self.database(store).__aenter__()

    def node(self, number: int, roles: str) -> Node:
        return Node(self, number, roles)

    def factory(self, number: int, process: Process, clock: NodeClock) -> Factory:
        """What a node opens its components by."""
        return SimFactory(self, number, process, clock)

    # The run.

    def run(self) -> h.History:
        """Everything, to the end."""
        try:
            self.loop.run(self._main())
        except (Spinning, Deadlock) as error:
            self.failed(type(error).__name__, error)
        finally:
            self._over = True
            self.loop.close()
            for disk in self.disks.values():
                disk.release()
        return self.history

    async def _main(self) -> None:
        await self._open_stores()
        for node in self.nodes:
            await node.start()
        spawn, plan = self.loop.spawn, self.plan
        self.devices = [Device(self, session, number) for number, session in enumerate(plan.sessions)]
        work = [spawn(self.outside, Sender(self, chain, number).run()) for number, chain in enumerate(plan.chains)]
        staying: list[asyncio.Task[None]] = []
        for device, session in zip(self.devices, plan.sessions, strict=True):
            (staying if session.stays else work).append(spawn(self.outside, device.run()))
        work += [spawn(self.outside, self._fault(fault)) for fault in plan.faults]
        watching = spawn(self.outside, self._watch()) if plan.plain else None
        weighing = spawn(self.outside, self._weigh()) if plan.bounds != NO_BOUNDS else None
        await asyncio.gather(*work)
        await self._settle()
        for task in (watching, weighing):
            if task is not None:
                task.cancel()
        self._tell_commands()
        self.add(self._final())
        self.leaving = True
        if staying:
            await asyncio.wait(staying)
        for task in staying:
            task.result()
        await self._drain()
        if plan.bounds != NO_BOUNDS:
            await self._knock()
            await self._drain()
        self.add(h.End(tuple(f"{store}: {id_}" for store, id_ in self._left())))

    async def gone_or_done(self, process: Process, task: asyncio.Task[Any]) -> None:
        """Return when ``task`` of ``process`` is done, or the process is dead; raises what the task raised."""
        while process.alive and not task.done():
            await self.loop.pause(0.05)
        if task.done():
            task.result()

    async def _watch(self) -> None:
        """Tell what is hot, again and again."""
        while True:
            await self.loop.pause(1.0)
            if found := self._hot_and_unmoved(int((START + self.loop.time()) * MICROSECONDS)):
                self.add(h.Hot(found))

    async def _weigh(self) -> None:
        """The bytes of hot mail are what its store counts, at any moment: not only at the end, when there is none."""
        while True:
            await self.loop.pause(WEIGH_SECONDS)
            for found in [*self._miscounted(cold_too=False), *self._unbalanced()]:
                self.failed(found, None)

    def _hot_and_unmoved(self, now: int) -> tuple[tuple[str, str], ...]:
        """What no migrator has taken."""
        query = f"SELECT user, hot.id FROM hot JOIN recipient USING (user) WHERE move_until < {now - MOVED}"
        return tuple((str(user), str(id_)) for user, id_ in self.disk("online").rows(query))

    # Faults.

    async def _jump(self, fault: Fault, node: Node) -> None:
        node.clock.offset += fault.size
        self.note(node.process.name, f"its clock is set by {fault.size:.0f} s")
        await self.loop.pause(fault.seconds)
        node.clock.offset -= fault.size
        self.note(node.process.name, "its clock is put right")

    async def _fault(self, fault: Fault) -> None:
        await self.loop.pause(fault.at)
        node = self.nodes[fault.target]
        if fault.kind in ("crash", "pause"):
            await self._burn(fault, node)
        elif fault.kind == "stop":
            self.note(node.process.name, "is told to stop")
            await node.stop()
            await self._start_again(node, fault.seconds)
        elif fault.kind == "step":
            step = STEP_SECONDS * (2 * self.chance.random() - 1)
            node.clock.offset += step
            self.note(node.process.name, f"its clock steps by {step:.1f} s")
        elif fault.kind == "jump":
            await self._jump(fault, node)
        elif fault.kind == "away":
            self._cut(fault, node)
        elif fault.kind == "power":
            await self._lose_power(fault)
        elif fault.kind == "forget":
            self._forgot = True
            self.weather.emptied += 1
            self.add(self._forgotten())
            self.disk("online").clear()
        elif fault.kind == "flip":
            self._flip(fault.store)
        elif fault.kind == "migrate" and node.listening:
            await self._migrate_by_hand(node)

    def _flip(self, store: str) -> None:
        """One bit of one envelope, or of its checksum, is another."""
        flipped = self.topic.flip(self.chance) if self.apart and store == "ingress" else self._flip_row(store)
        if flipped is not None:
            self.note(store, f"a bit flips in {flipped}")
            self.add(h.Flipped(flipped))
            self._flipped.add(flipped)

    def _flip_row(self, store: str) -> str | None:
        table = "hot" if store == "online" else store
        return self.disk(store).flip(table)

    def _forgotten(self) -> h.Forgotten:
        owed = [id_ for id_, state in self._under_way() if state == State.ACKED_OWED]
        pending = [id_ for id_, state in self._under_way() if state == State.PENDING]
        hot = self._held("hot", "online")
        if self.plan.write_through:
            pending += [id_ for user, id_ in hot if (user, id_) not in self._held("cold", "cold")]
        return h.Forgotten((*(id_ for _, id_ in hot), *owed), tuple(pending))

    async def _burn(self, fault: Fault, node: Node) -> None:
        process = node.process
        if not process.alive or process.fuse:
            return
        burnt = asyncio.Event()

        def burn() -> None:
            burnt.set()
            if fault.kind == "crash":
                self.note(process.name, "crashes")
                node.crash()
            else:
                self.note(process.name, "pauses")
                process.paused = True

        self._fuses[process] = burn
        process.fuse = fault.fuse
        try:
            async with asyncio.timeout(5.0):
                await burnt.wait()
        except TimeoutError:
            process.fuse = 0
            return
        if fault.kind == "crash":
            await self._start_again(node, fault.seconds)
        else:
            await self.loop.pause(fault.seconds)
            self.note(process.name, "goes on")
            self.loop.resume(process)

    def _blown(self, process: Process) -> None:
        self._fuses.pop(process)()

    async def _start_again(self, node: Node, seconds: float) -> None:
        await self.loop.pause(seconds)
        if not node.process.alive:
            self.note(node.process.name, "starts again")
            await node.start()

    def _cut(self, fault: Fault, node: Node) -> None:
        everybody = self.chance.random() < 0.5
        for other in self.nodes if everybody else [node]:
            self.weather.cut(other.number, fault.store, fault.seconds)
        who = "nobody" if everybody else f"{node.process.name} not"
        self.note(fault.store, f"{who} reaches it for {fault.seconds:.1f} s")

    async def _lose_power(self, fault: Fault) -> None:
        disk = self.disk("file")
        if not disk.watch():
            return
        await self.loop.pause(self.chance.random() * 2)
        for node in self.nodes:
            if node.process.alive:
                node.crash()
        lost = disk.lose_power()
        self.add(h.PowerLost())
        self.note("power", f"fails; {lost} commits are lost")
        await asyncio.gather(*(self._start_again(node, fault.seconds) for node in self.nodes))

    async def _migrate_by_hand(self, node: Node) -> None:
        user = user_name(self.chance.randrange(self.plan.users))

        async def migrate() -> None:
            try:
                migrator = await node.factory.migrator()
                await migrator.migrate(user, online_too=True)
            except RouterError as error:
                self.note(node.process.name, f"cannot migrate: {error}")

        self.note(node.process.name, f"migrates {user} by hand")
        await self.gone_or_done(node.process, self.loop.spawn(node.process, migrate()))

    # The end.

    async def _settle(self) -> None:
        """All faults are over; wait until nothing is under way, but no longer than the longest span."""
        self.weather.calm = True
        self.post.calm()
        self.topic.calm()
        self.note("sim", "all faults are over")
        for node in self.nodes:
            node.process.fuse = 0
            if node.process.paused:
                self.loop.resume(node.process)
            if not node.process.alive:
                await node.start()
        quiet = 0
        for _ in range(DAY_SETTLE_SECONDS if self.plan.day else SETTLE_SECONDS):
            await self.loop.pause(1)
            quiet = quiet + 1 if self._quiet() else 0
            if quiet == 2:
                return

    def _readers(self) -> set[str]:
        return {device.user for device in self.devices if device.reads and not device.uninformed}

    def _quiet(self) -> bool:
        """Nothing is under way, and nobody is online but those who have read all there was. The cheap looks first."""
        if self.weather.late or any(node.routing for node in self.nodes) or self._waiting():
            return False
        online = self._readers()
        if any(user in online for user, _ in self._held("cold", "cold")) or self._present() - online:
            return False
        final = self._final()
        return not (final.hot or final.owed or final.oddities)

    def _present(self) -> set[object]:
        return {user for (user,) in self.disk("online").rows("SELECT user FROM presence")}

    def _waiting(self) -> list[str]:
        if self.apart:
            return [message.id for message in self.topic.waiting()]
        return [str(id_) for (id_,) in self.disk("file").rows("SELECT id FROM ingress")]

    def _held(self, table: str, store: str) -> tuple[tuple[str, str], ...]:
        return tuple((str(user), str(id_)) for user, id_ in self.disk(store).rows(f"SELECT user, id FROM {table}"))

    def _final(self) -> h.Final:
        owed = [f"{id_} in state {state}" for id_, state in self._under_way()]
        owed += [f"the pipeline of {node.process.name}" for node in self.nodes if node.routing]
        return h.Final(
            ingress=tuple(self._waiting()),
            hot=self._held("hot", "online"),
            cold=self._held("cold", "cold"),
            online=tuple(sorted(self._readers())),
            owed=tuple(owed),
            oddities=tuple(self._oddities()),
        )

    def _under_way(self) -> list[tuple[str, int]]:
        """The id and the state of each message that something is still to be done for."""
        rows = self.disk("online").rows("SELECT id, state FROM route WHERE state IN (1, 5)")
        return [(str(id_), int(str(state))) for id_, state in rows]

    def _oddities(self) -> list[str]:
        online = self.disk("online")
        found = [
            f"the store counts {counted} hot messages of {user} and holds {held}"
            for user, counted, held in online.rows(
                "SELECT user, hot, (SELECT count(*) FROM hot WHERE hot.user = recipient.user) AS held "
                "FROM recipient WHERE hot <> held"
            )
        ]
        found += self._miscounted(cold_too=not self._forgot)
        found += self._unbalanced()
        if not (self.apart or self._forgot):
            found += [
                f"of {user} the books have {kept} messages, and the queues hold {held}"
                for user, kept, held in map(astuple, books.read(online.connection)[1])
            ]
        found += [
            f"the store counts {counted} pending messages of {user} and knows of {held}"
            for user, counted, held in online.rows(
                "SELECT user, pending, (SELECT count(*) FROM route WHERE route.user = recipient.user AND state = 1) "
                "AS held FROM recipient WHERE pending <> held"
            )
        ]
        if not self.apart:
            found += [
                f"a push command of {id_} is for mail that is gone"
                for (id_,) in self.disk("file").rows(
                    "SELECT id FROM outbox WHERE NOT EXISTS "
                    "(SELECT 1 FROM cold WHERE cold.id = outbox.id AND cold.user = outbox.recipient) AND NOT EXISTS "
                    "(SELECT 1 FROM hot WHERE hot.id = outbox.id AND hot.user = outbox.recipient)"
                )
            ]
        cold = {id_ for _, id_ in self._held("cold", "cold")}
        hot = {id_ for _, id_ in self._held("hot", "online")}
        if not self.plan.write_through:
            found += [f"{id_} is in hot and in cold" for id_ in sorted(cold & hot)]
        # What is refused may have been put into cold before, in an outage of the online store.
        if not self._forgot and not self.reasons:
            states = {id_: state for id_, state in online.rows("SELECT id, state FROM route")}  # noqa: C416 - for mypy
            settled = (2, 4) if self.plan.write_through else (2,)
            found += [
                f"{id_} is in cold and the store calls it {states.get(id_)}"
                for id_ in sorted(cold)
                if states.get(id_) not in settled
            ]
        return found

    def _miscounted(self, *, cold_too: bool) -> list[str]:
        """A store that forgot counts none of what was in cold then."""
        online = self.disk("online")
        hot = online.rows("SELECT user, length(envelope) FROM hot")
        cold = self.disk("cold").rows("SELECT user, id, length(envelope) FROM cold")
        recorded = set(online.rows("SELECT user, id FROM route WHERE state IN (1, 2)"))
        counted = online.rows("SELECT user, hot_bytes, cold_bytes FROM recipient")
        return miscounted(
            {str(user): (int(str(of_hot)), int(str(of_cold))) for user, of_hot, of_cold in counted},
            [(str(user), int(str(size))) for user, size in hot],
            [(str(user), int(str(size))) for user, id_, size in cold if (user, id_) in recorded],
            cold_too=cold_too,
        )

    def _unbalanced(self) -> list[str]:
        """Each message that was accepted is queued, or the books say what became of it: at any moment."""
        return [
            f"of {user} {missing} accepted messages are missing in the books"
            for user, missing in self.disk("online").rows(
                "SELECT user, accepted - acknowledged - expired - dropped - dead - hot - cold AS missing "
                "FROM recipient WHERE missing <> 0"
            )
        ]

    def _left(self) -> list[tuple[str, str]]:
        found = [("ingress", id_) for id_ in self._waiting()]
        found += [("hot", id_) for _, id_ in self._held("hot", "online")]
        return found + [("cold", id_) for _, id_ in self._held("cold", "cold")]

    async def _knock(self) -> None:
        """All is acknowledged: once budgets have come back, each queue takes a message again."""
        await self.loop.pause(self.plan.bounds.inbound_seconds + PLAUSIBLE_INBOUND_SECONDS)
        steps = tuple(Step(f"k{number}0", number) for number in range(self.plan.users))
        sender = Sender(self, Chain(0.0, KNOCKER, steps), KNOCKER)
        began = len(self.history)
        for step in steps:
            if not await sender.send(step):
                self.failed(f"{step.tag} is not accepted, with all queues empty", None)
        for _ in range(SETTLE_SECONDS):
            if not (self._waiting() or self._under_way() or any(node.routing for node in self.nodes)):
                break
            await self.loop.pause(1.0)
        for event in self.history.events[began:]:
            if isinstance(event, h.Buried):
                self.failed(f"{event.id} is refused, with all queues empty: {event.reason}", None)

    def _holds_damage(self, user: str) -> bool:
        held = (*self._held("hot", "online"), *self._held("cold", "cold"))
        return any(owner == user and id_ in self._flipped for owner, id_ in held)

    async def _drain(self) -> None:
        """A clean client of each user reads all there is."""
        self.add(h.Draining())
        for number in range(self.plan.users):
            user = user_name(number)
            bearer = token(user, FAR)
            for _ in range(100):
                ids = await fetch(self, self.chance, user, bearer, 50)
                if ids == [] and not self._holds_damage(user):
                    break
                if ids == []:
                    await self.loop.pause(1.0)  # it may leave a moment after the fetch that has met it
                if ids:
                    await acknowledge(self, self.chance, user, bearer, ids)
            else:
                self.add(h.Failed(f"the queue of {user} never becomes empty"))


def _long_seconds(plan: Plan) -> float:
    """How much longer than others a run of ``plan`` takes: a day, or until all clocks are put right."""
    jumps = [fault.seconds for fault in plan.faults if fault.kind == "jump"]
    return max([plan.seconds * plan.day, *jumps])

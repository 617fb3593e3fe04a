"""The mutants: what each is called, where it is, and what it changes."""

from __future__ import annotations

from tests.support.mutation import Mutant, after, before, drop, force, in_function, in_script, replace

PATIENT = "database.write(..., patient=len(ids) <= FEW)"
ORDERED = "await self._state.database.write_ordered(...)"

MUTANTS = (
    # Reading and acknowledging.
    Mutant(
        "cold is read before hot",
        in_function(
            "CompositeMessageQueue.fetch",
            before(
                "_online.read(...)",
                "early = await self._cold.read(user, limit, PAGE_BYTES)\n"
                "early = replace(early, messages=Found().note_cold(early.messages))",
            ),
            after(
                "_online.read(...)",
                "hot = _checked(hot, Found())\n"
                "if not hot.cold_empty:\n"
                "    ids = [queued.message.id for queued in early.messages]\n"
                "    acked = await self._online.acked(user, ids)\n"
                "    return [one for one in merge(hot, early, acked, limit, PAGE_BYTES) if not one.damaged]",
            ),
        ),
    ),
    Mutant(
        "a worker serves a stale page: what it read last, though another one has acknowledged that",
        in_function(
            "CompositeMessageQueue.fetch",
            before(
                "_online.read(...)",
                "pages = self.__dict__.setdefault('_pages', {})\nif pages.get(user):\n    return pages.pop(user)",
            ),
            replace("_page(...)", "pages[user] = await self._page(user, limit, hot)\nreturn pages[user]"),
        ),
        in_function(
            "CompositeMessageQueue.acknowledge",
            before("dict.fromkeys(...)", "self.__dict__.get('_pages', {}).pop(user, None)"),
        ),
        in_function(
            "CompositeMessageQueue.next",
            before("dict.fromkeys(...)", "self.__dict__.get('_pages', {}).pop(user, None)"),
        ),
    ),
    Mutant(
        "copies in cold of acknowledged mail are served",
        in_function("CompositeMessageQueue._read_cold", replace("_online.acked(...)", "set[str]()")),
    ),
    Mutant(
        "an acknowledgement leaves the copy in cold",
        in_function(
            "CompositeMessageQueue._end",
            replace("delete_copies(...)", "await self._online.forget_orphans(user, owed)"),
        ),
    ),
    Mutant(
        "cold first, then the record: an acknowledgement that dies between comes back",
        in_function(
            "CompositeMessageQueue.acknowledge", before("_online.ack(...)", "await self._cold.delete(user, unique)")
        ),
    ),
    Mutant(
        "what was served in an outage is acknowledged and not remembered",
        in_function("CompositeMessageQueue._end", drop("remember(...)")),
    ),
    Mutant(
        "next reads the page before it acknowledges",
        in_function(
            "CompositeMessageQueue.next",
            before("_online.ack_and_read(...)", "early = await self._online.read(user, limit, PAGE_BYTES)"),
            after("_online.ack_and_read(...)", "hot = early"),
        ),
    ),
    Mutant(
        "next answers with the page though the acknowledgement failed",
        in_function(
            "CompositeMessageQueue.next",
            replace(
                "_online.ack_and_read(...)",
                "try:\n    it\nexcept Exception:\n    owed, hot = [], await self._online.read(user, limit, PAGE_BYTES)",
            ),
        ),
    ),
    Mutant(
        "the embedded store reads the page before it acknowledges",
        in_function(
            "EmbeddedQueue.ack_and_read.step",
            before("_leave(...)", "page = mark_and_page_of(db, user, limit, max_bytes, cutoff, now)"),
            replace("(owed, mark_and_page_of(...))", "(owed, page)"),
        ),
    ),
    Mutant(
        "copies of acknowledged mail take the places of others",
        in_function("_Cold.is_thinned", force("lane not in _more", True)),
    ),
    Mutant(
        "mail overtakes a cold write under way",
        in_function("merge", force("sequence < unseen.get(...)", True)),
    ),
    Mutant(
        "of two copies the later sequence counts",
        in_function("_whole", replace("known is None or sequence < sequence", "known is None")),
    ),
    Mutant(
        "one lane only: the express lane is forgotten in a batch",
        in_function("merge", replace("queued.place", "queued.sequence")),
    ),
    Mutant(
        "express mail may take a whole page",
        in_function("pages.cut", replace("fit(normal, share(...), share(...))", "list[Queued]()")),
    ),
    Mutant(
        "the newest normal mail has the places that are kept",
        in_function("pages.cut", replace("fit(normal, ... - len(express), ...)", "normal[len(express) - limit :]")),
    ),
    Mutant(
        "the rest of a lane that was not read counts as read",
        in_function("_horizon", replace("page.more", "page.more - {Lane.NORMAL}")),
    ),
    Mutant(
        "another user's acknowledgement deletes hot mail",
        in_function(
            "embedded.ack",
            before(
                'SQL["registered"]',
                'user = (one(db, "SELECT user FROM route WHERE id = ?", (id_,)) or [user])[0]',
            ),
        ),
    ),
    Mutant(
        "tombstone forgotten: acknowledged ids are unknown",
        in_function(
            "embedded.ack", replace('execute(SQL["set_state"], ...)', 'db.execute(SQL["forget"], (id_, user))')
        ),
    ),
    Mutant(
        "an acknowledgement is answered before it is on disk",
        in_function("EmbeddedQueue.ack", replace(PATIENT, ORDERED)),
        in_function("EmbeddedQueue.ack_and_read", replace(PATIENT, ORDERED)),
    ),
    Mutant(
        "hot mail is served whatever became of it",
        in_function("user_queue._checked", replace("note_hot(...)", "...")),
    ),
    Mutant(
        "cold mail is served whatever became of it",
        in_function("CompositeMessageQueue._read_cold", replace("note_cold(...)", "...")),
    ),
    Mutant(
        "what is damaged in the ingress is routed, with a new checksum",
        in_function(
            "deliveries._checked",
            before(
                "is_whole(...)",
                "if message is not None:\n"
                "    return structs.replace(delivery, message=structs.replace(message, checksum=None))",
            ),
        ),
    ),
    Mutant(
        "damaged mail leaves the queue without a dead letter",
        in_function("Damage.bury", drop("refuse(...)")),
    ),
    # Migrating.
    Mutant(
        "migration deletes before the write is confirmed",
        in_function("Migrator._move", before("_put(...)", "await self._online.end_move(user, owner, messages)")),
    ),
    Mutant(
        "migration ignores what cold refused",
        in_function("Migrator._put", replace("_cold.put(...)", "it[:0]")),
    ),
    Mutant(
        "migrated mail is not announced",
        in_function("Migrator._leave_hot", force("unannounced", False)),
    ),
    Mutant(
        "ephemeral mail migrates",
        in_function("embedded.begin_move", replace("_drop_ephemeral(...)", "0")),
    ),
    Mutant(
        "a migrator does not mark what it takes",
        in_script("embedded.mark_moving", replace("AND state IN $BEFORE_TAKEN", "AND state = 9")),
    ),
    # Routing.
    Mutant(
        "the ingress is told before the message is routed",
        in_function("Passes.run", before("_placement.place(...)", "await self._receipts.acknowledge(readable)")),
    ),
    Mutant(
        "the ingress is told before the cold write",
        in_function("Passes._store", before("_copies.store(...)", "await self._receipts.acknowledge(stored)")),
        in_function("Passes._store_in_turn", before("_copies.store(...)", "await self._receipts.acknowledge(heads)")),
    ),
    Mutant(
        "the push command goes out before the cold write",
        in_function(
            "Copies.store",
            before("_write(...)", "await self.announce([flight.message for flight in flights])"),
        ),
    ),
    Mutant(
        "what cold refused is dropped",
        in_function("Copies._put", replace("_cold.put(...)", "it[:0]")),
    ),
    Mutant(
        "one recipient's messages are worked on at once",
        in_function("Recipients.begin", replace("(line := ...) is not None", "it and False")),
    ),
    Mutant(
        "what waited for a recipient starts in the wrong order",
        in_function("Recipients.end", replace("_busy.pop(...).waiting", "reversed(it)")),
    ),
    Mutant(
        "a recipient is free when the first of their messages in work is done",
        in_function(
            "Recipients.end",
            replace("_busy[...]", "self._busy.get(..., _Line())"),
            force("line.in_work", False),
            replace("_busy.pop(...)", "self._busy.pop(..., _Line())"),
        ),
    ),
    Mutant(
        "push commands are forgotten",
        in_function("Copies.announce", force("messages", False)),
    ),
    Mutant(
        "dead letters go nowhere",
        in_function("Refuser.refuse", drop("_letters.publish(...)")),
    ),
    Mutant(
        "an outage of a dependency uses up a message's tries",
        in_function(
            "Pipeline._advance",
            before(
                "isinstance(error, DataDirLost) and ...",
                "tries += 1\n"
                "blame, behind = self._undeliverable.blame, self._recipients.behind\n"
                "left = [one for one in left if not await blame(one, tries, OSError(), behind(one))]",
            ),
        ),
    ),
    Mutant(
        "a dead letter that cannot be published stops its recipient for good",
        in_function(
            "Undeliverable.blame",
            replace(
                "try: ...\nexcept (Unavailable, TimeoutError): ...\nexcept Exception as failure: ...",
                "await self._give_up(flight, error)",
            ),
        ),
    ),
    Mutant(
        "settling takes all its calls within the time of one",
        in_function(
            "Settler.settle",
            after(
                "_online.settle(...)",
                "for queued in settled.acked:\n"
                "    await self._cold.delete(queued.message.recipient, [queued.message.id])\n"
                "    await self._online.forget_orphans(queued.message.recipient, [queued.message.id])",
            ),
        ),
    ),
    Mutant(
        "mail acknowledged before it was settled stays in cold",
        in_function("Settler.settle", drop("_delete(...)")),
    ),
    Mutant(
        "write-through writes nothing",
        in_function("step_after", force("write_through", False)),
    ),
    # An online store that is away.
    Mutant(
        "ephemeral mail goes cold in an outage",
        in_function("Outage.place", force("message.ephemeral", False)),
    ),
    Mutant(
        "an outage ends before the store has been told",
        in_function("Outage.end", replace("... or ...", "False")),
    ),
    # The store's own rules.
    Mutant(
        "sequences come from the node's clock alone",
        in_function("next_sequence", replace("max(...)", "now")),
    ),
    Mutant(
        "a redelivery is a new message",
        in_script("embedded.register", replace("INSERT OR IGNORE", "INSERT OR REPLACE")),
    ),
    Mutant(
        "a copy of an outage ends the write that has its place",
        in_function("is_misplaced", replace("... and ...", "False")),
    ),
    Mutant(
        "of two copies in cold the first one written stays",
        in_script("cold.put", replace("sequence = min(sequence, excluded.sequence)", "sequence = sequence")),
    ),
    Mutant(
        "expired ephemeral mail is served",
        in_function("EmbeddedQueue.read", replace("ephemeral_cutoff(...)", "0")),
    ),
    Mutant(
        "copies of acknowledged mail are left to nobody",
        in_function("Sweeper._delete_orphans", replace("_online.orphans(...)", "it[:0]")),
    ),
    Mutant(
        "mail of a user whose node died is not moved",
        in_function("due", replace("Due(migrate=..., stop_poking=True)", "Due(stop_poking=True)")),
    ),
    Mutant(
        "lost pokes are not repeated",
        in_function("due", replace("_waits(...)", "False")),
    ),
    Mutant(
        "a page of cold that has more behind it counts as the end",
        in_function("shows_all", force("cold.more", False)),
    ),
    Mutant(
        "a page that was cut short answers the poke",
        in_function("_waits", replace("abs(...) >= ...", "False")),
    ),
    # Presence and pokes.
    Mutant(
        "presence is removed by the old socket's close",
        in_script("embedded.disconnect", replace("AND id = ?", "AND id >= '' AND ? IS NOT NULL")),
    ),
    Mutant(
        "leases never run out",
        in_function("StoreRules.lease_until", replace("int(...)", "10**15")),
    ),
    Mutant(
        "who connects is not told of mail that waits",
        in_function("EmbeddedPresence._register.register", replace("bool(waiting)", "False")),
    ),
    Mutant(
        "a fetch is not noted: the next message is not poked for",
        in_script("embedded.fetched", replace("fetched = 1,", "")),
    ),
    Mutant(
        "mail that was settled for a user who came online is not poked for",
        in_function("embedded._arrive", replace("recipient.poke(...)", "()")),
    ),
    # The ingress.
    Mutant(
        "a message is accepted before it is on disk",
        in_function("EmbeddedIngressProducer.publish", replace("_database.write", "self._database.write_ordered")),
    ),
    Mutant(
        "202 though the publish failed",
        in_function("Acceptor.accept", replace("_producer.publish(...)", "try:\n    it\nexcept Exception:\n    pass")),
    ),
    Mutant(
        "a repeated Idempotency-Key gets a new id",
        in_function("Acceptor._read", replace("keyed_id(...)", "ids.new_id(now, self._entropy(10))")),
    ),
    Mutant(
        "a batch drops the rest after one refusal",
        in_function(
            "Batch.publish",
            before(
                "failures = iter(...)",
                "refused = [n for n, each in enumerate(self._read) if isinstance(each, RouterError)]\n"
                "messages = messages[: min(refused, default=None)]",
            ),
            replace("next(failures)", "next(failures, None)"),
        ),
    ),
    Mutant(
        "a batch reorders the messages of one recipient",
        in_function("Batch.publish", replace("_publish(messages)", "await self._publish(messages[::-1])")),
    ),
    Mutant(
        "a message of a batch is answered 202 though its publish failed",
        in_function("Batch.publish", replace("next(failures)", "(next(failures), None)[1]")),
    ),
    Mutant(
        "a batch is refused whole for one message that is not an envelope",
        in_function("Batch.add", replace("append(error)", "raise error")),
    ),
    Mutant(
        "retention believes its clock",
        in_function(
            "Sweeper._retain",
            replace("_keeper.deleting_at()", "self._clock.now()"),
            replace("_keeper.agreed_seconds", "1e9"),
        ),
    ),
    Mutant(
        "records of ids are forgotten by a clock that is believed",
        in_function("Sweeper._expire_messages", replace("_keeper.deleting_at()", "self._clock.now()")),
    ),
    Mutant(
        "one acknowledgement is taken for all before it",
        in_script("ingress.ack", replace("number = ?", "number <= ?")),
    ),
    Mutant(
        "a successor starts behind what its predecessor had taken",
        in_function("EmbeddedIngressConsumer._take_lock", after('SQL["last"]', "self._cursor = self._found")),
    ),
    Mutant(
        "a consumer that nobody wakes sleeps on",
        in_function("EmbeddedIngressConsumer.receive", replace("LOOK_SECONDS", "None")),
    ),
    # Where one file holds all that a message passes.
    Mutant(
        "a key that is sent twice is routed twice",
        in_function(
            "EmbeddedRoutingIngress._route",
            before("route(...)", 'db.executemany(HOT["forget"], [(one.id, one.recipient) for one in direct])'),
        ),
    ),
    Mutant(
        "a message that is routed at once is accepted before it is on disk",
        in_function(
            "EmbeddedRoutingIngress.publish",
            replace(
                "_database.write(lambda db: self._route(db, messages, now))",
                "self._database.write_ordered(lambda db: self._route(db, messages, now))",
            ),
        ),
    ),
    Mutant(
        "the poke goes out before the commit, which takes a while",
        in_function(
            "EmbeddedRoutingIngress.publish",
            before(
                "_database.write(lambda db: self._route(db, messages, now))",
                'rows = self._database.read(lambda db: db.execute("SELECT node, user FROM presence").fetchall())\n'
                "names = {message.recipient for message in messages}\n"
                "await self._state.publish([(node, user) for node, user in rows if user in names])\n"
                "await self._state.clock.sleep(0.5)",
            ),
            replace("step.published", "structs.replace(it, pokes=[])"),
        ),
    ),
    Mutant(
        "what comes overtakes what waits in the ingress",
        in_function("EmbeddedRoutingIngress._route", replace("waiting(...)", "set[str]()")),
    ),
    Mutant(
        "what is refused at once is no dead letter",
        in_function("EmbeddedRoutingIngress._route", replace("_letters.bury(...)", "Buried()")),
    ),
    Mutant(
        "a push command goes out for mail that is not written",
        in_function("EmbeddedRoutingIngress._route", drop("cold.put(...)")),
    ),
    Mutant(
        "the command of mail that is acknowledged stays, without the envelope that it refers to",
        in_function("departures.remove", drop("withdraw(...)")),
    ),
    Mutant(
        "acknowledged mail stays in cold, without its record",
        in_function("departures.remove", drop('execute(SQL["remove_cold"], ...)')),
    ),
    Mutant(
        "a key is forgotten when its message is acknowledged",
        in_function("Departures.end", force("keyed or ...", False)),
    ),
    Mutant(
        "an id is forgotten though the ingress has it",
        in_function("Departures.__init__", force("bool(...)", False)),
    ),
    Mutant(
        "mail that moves in one step is not announced",
        in_function("embedded._move", drop("announce(...)")),
    ),
    # Limits.
    Mutant(
        "cold mail that is acknowledged gives no bytes back",
        in_function("embedded.ack", drop("cold_bytes -= size")),
    ),
    Mutant(
        "hot mail that is acknowledged gives no bytes back",
        in_function("embedded.ack", drop("hot_bytes -= removed * size")),
    ),
    Mutant(
        "the bytes of a redelivery are counted once more",
        in_function("embedded._enter", after("recipient.sequence = before", "recipient.cold_bytes += size")),
    ),
    Mutant(
        "the bytes of mail that moves to cold are counted no more",
        in_function("embedded.end_move", replace("sum(arrived)", "0")),
    ),
    Mutant(
        "what was refused is routed after all, where its dead letter takes a while",
        in_function(
            "Passes.run",
            replace("at(..., Step.REFUSED)", "[one for one in it if one.delivery.message is None]"),
            replace("not_at(...)", "[one for one in not_at(batch, Step.FINISHED) if one not in refused]"),
        ),
    ),
    Mutant(
        "what is refused goes nowhere",
        in_function(
            "Passes.follow",
            replace("at(part, Step.REFUSED)", "list[InFlight]()"),
            replace("at(part, Step.WRITTEN)", "at(part, Step.WRITTEN, Step.REFUSED)"),
        ),
    ),
    Mutant(
        "an inbound budget is spent on ten times the bytes that came",
        in_function("RecipientLimits._microseconds", replace("size * MICROSECONDS", "10 * size * MICROSECONDS")),
    ),
    # The books.
    Mutant(
        "the books forget what was acknowledged",
        in_function("gone_as", replace("messages", "0")),
    ),
    Mutant("the books forget what was dropped on its way", in_function("embedded.route", drop("turn_away(...)"))),
    Mutant("the books forget ephemeral mail", in_function("departures.drop", drop('changes[user]["dropped"] += 1'))),
)

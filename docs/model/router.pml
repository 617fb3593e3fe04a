/* How router moves one recipient's mail: routing, fetch, acknowledge, migrate, reconnect, crash.

   One recipient is enough: what is kept of two of them never meets. What is between two semicolons outside of atomic and
   d_step is one step, which its store takes atomically (docs/architecture.md); between two steps everything else may
   happen. Sets are bit masks over ids; a smaller id was accepted before a larger one was sent. There is no time: what
   happens after a while in the code may happen at any moment here. README.md says what that assumes and what is left out.

   The promises bear the names that tests/sim/checker.py and docs/specification.md#promises give them. */

#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef FAULTS
#define FAULTS 2    /* crashes, refused writes, lost pokes, sockets that vanish, leases that run out under their holder */
#endif
#ifndef PIPELINES
#define PIPELINES 1
#endif
#ifndef DEVICES
#define DEVICES 2
#endif
#ifndef MIGRATORS
#define MIGRATORS 1
#endif
#ifndef ONE_PAGE
#define ONE_PAGE 0  /* 1: a device whose fetch is not one step takes one message for each poke, and gives up what dies */
#endif
#ifndef ONE_FILE
#define ONE_FILE 0  /* 1: ingress, online store, cold queue and outbox are one file (backends/embedded/direct.py) */
#endif

#define ALL ((1 << MESSAGES) - 1)
#define HAS(set, i) ((set) >> (i) & 1)
#ifdef BUG_NEW_ID
#define IDS (2 * MESSAGES)    /* those behind are second ids */
#else
#define IDS MESSAGES
#endif
#define promise(name, kept) if :: (kept) :: else -> printf("broken: "); printf(#name); printf("\n"); assert(false) fi

byte faults = FAULTS;
#define FAULT faults > 0 -> faults--
#define MAY_CRASH(where) if :: true :: FAULT; goto where fi

/* Ingress. */
byte inbox, sent, again;    /* to be routed; answered 202; delivered more than once */
byte keyed;                 /* with ONE_FILE: sent under an Idempotency-Key, so that their sender may send them again */
byte holder;                /* the pipeline that has what is in the inbox; 0: none */

/* Online store: the record of ids (lifecycle.State). What is HOT or DOUBLE has its copy in the hot queue. */
byte HOT, PENDING, COLD, ACKED, DOUBLE, ACKED_OWED;
byte sequence[IDS], last;
bool leased[2];             /* presence */
bool fetched = true;        /* nobody has been poked since the last fetch */
byte cut;                   /* a page was cut short, or may have been: that of device cut - 1, or 3: of nobody; 0: none */
bool cold_empty;            /* known to be so */
byte watch[2];              /* cold_version: 0: this device does not fetch; 1: unchanged since it read hot; 2: changed */
byte mover;                 /* who holds the migration lease; 0: nobody */
#define IN_HOT (HOT | DOUBLE)
#define GONE (ACKED | ACKED_OWED)
#define ONLINE (leased[0] || leased[1])

byte cold, pushed;              /* the cold queue; the push commands that went out */
bool socket[2], poked[2];       /* of two devices */
#define READS (socket[0] || socket[1])

byte seen, ack_begun, away;     /* returned by a fetch; acknowledgement sent; answered, or seen to have worked */
bool slow[2] = true;            /* an acknowledgement that lasts longer than the ingress needs to deliver again */

inline version_changed() { watch[0] = (watch[0] -> 2 : 0); watch[1] = (watch[1] -> 2 : 0) }
inline cold_changed() { version_changed(); cold_empty = false }

inline poke() {
    if
    :: fetched && ONLINE && FAULT; fetched = false    /* it is lost on its way to the node */
    :: fetched && ONLINE ->
       fetched = false;
       poked[0] = poked[0] || leased[0] && socket[0];
       poked[1] = poked[1] || leased[1] && socket[1]
    :: else
    fi
}

inline announce(ids) {
    promise(push after commit, (ids & ~(IN_HOT | cold | ack_begun)) == 0); pushed = pushed | ids & ~ack_begun
}

#define KNOWN (IN_HOT | PENDING | COLD | GONE)

/* backends/embedded/direct.py: what a message is owed, in the step that makes it durable. */
inline accept(n) {
    if
    :: KNOWN & 1 << n
#ifndef BUG_NOT_BEHIND
    :: !(KNOWN & 1 << n) && inbox -> inbox = inbox | 1 << n    /* it waits behind others of its recipient */
    :: !(KNOWN & 1 << n) && !inbox ->
#else
    :: else ->
#endif
       last++; sequence[n] = last;
       if
       :: ONLINE -> HOT = HOT | 1 << n; poke()
       :: else ->
          COLD = COLD | 1 << n; cold = cold | 1 << n; cold_changed();
#ifndef BUG_COMMAND_LATER
          announce(1 << n)
#endif
       fi
    fi
}

active proctype Sender() {
    byte n;
    do
#if ONE_FILE
    :: atomic {
           n < MESSAGES ->
           if
           :: n == 0 -> inbox = inbox | 1    /* an earlier version accepted it, or a process that does not route */
           :: true -> accept(n)
           :: true -> keyed = keyed | 1 << n; accept(n)
           fi;
           sent = sent | 1 << n; n++
       }
    :: atomic { n && keyed & 1 << (n - 1) && FAULT; accept(n - 1) }    /* its answer was lost: it is sent again */
#ifdef BUG_COMMAND_LATER
    :: atomic { n && cold & ~pushed & ~ack_begun -> if :: announce(cold) :: FAULT; break fi }
#endif
#else
    :: atomic { n < MESSAGES -> inbox = inbox | 1 << n; sent = sent | 1 << n; n++ }
#endif
    :: n == MESSAGES -> break
    od
}

/* No copy of these is left in cold, unless a migrator is about to write it. */
inline forget_orphans(ids) {
    if
#ifndef BUG_MOVE_LEASE_NOT_CHECKED
    :: mover != 0
    :: else ->
#else
    :: true ->
#endif
       ACKED = ACKED | ids & ACKED_OWED; ACKED_OWED = ACKED_OWED & ~ids
    fi
}

/* HotQueue.route. done: nothing is owed any more; owed: to cold; what is in neither: to be announced. */
inline route() {
    for (i : 0 .. IDS - 1) {
        bit_i = batch & 1 << i;
        if
        :: bit_i & PENDING -> owed = owed | bit_i
        :: bit_i & COLD
        :: bit_i & (IN_HOT | GONE) ->    /* who delivers twice may have written to cold without this store */
           done = done | bit_i;
           DOUBLE = DOUBLE | bit_i & again & HOT; HOT = HOT & ~(bit_i & again);
           ACKED_OWED = ACKED_OWED | bit_i & again & ACKED; ACKED = ACKED & ~(bit_i & again)
        :: bit_i && !(bit_i & (PENDING | COLD | IN_HOT | GONE)) ->
           last++; sequence[i] = last;
           if
           :: ONLINE && !(bit_i & again) -> done = done | bit_i; HOT = HOT | bit_i; poke()
           :: ONLINE && bit_i & again ->
              done = done | bit_i; DOUBLE = DOUBLE | bit_i; version_changed(); poke()
           :: else -> owed = owed | bit_i; PENDING = PENDING | bit_i; cold_changed()
           fi
        :: else
        fi
    };
    i = 0; bit_i = 0
}

/* HotQueue.settle: these are in cold now. late: they were acknowledged meanwhile. */
inline settle(ids) {
    late = ids & GONE;
    if
    :: ids & (HOT | PENDING) ->
       COLD = COLD | ids & PENDING; DOUBLE = DOUBLE | ids & HOT; PENDING = PENDING & ~ids; HOT = HOT & ~ids;
       cold_changed();
#ifndef BUG_SETTLED_SILENTLY
       poke()
#endif
    :: else
    fi
}

inline redeliver() {
    again = again | batch & inbox; slow[0] = true; slow[1] = true;
#ifdef BUG_NEW_ID
    inbox = inbox & ~batch | (inbox & batch & ALL) << MESSAGES;
#endif
    if :: holder == _pid -> holder = 0 :: else fi
}

active [PIPELINES] proctype Pipeline() {    /* core/routing.py; what one step of the ingress alone follows is one with it */
    byte batch, done, owed, late, i, bit_i;
end:
    do
    :: atomic { holder == 0 && inbox -> holder = _pid };
next:  atomic {
           batch = inbox; route(); MAY_CRASH(died);
#ifdef BUG_INGRESS_TOLD_FIRST
           done = batch;
#endif
           inbox = inbox & ~done; batch = batch & ~done; done = 0;
           if :: !batch -> goto told :: else fi
       };
#if PIPELINES > 1
       if :: true :: atomic { FAULT; redeliver() } fi;    /* it is slow: another one takes the same messages */
#endif
#ifdef BUG_PUSH_FIRST
       atomic { announce(batch) };
#endif
       atomic {    /* cold.put, which may take a part of them only; what it refused is tried again */
           if :: true :: owed && FAULT; if :: batch = batch & ~1; owed = owed & ~1 :: batch = batch & 1; owed = owed & 1 fi fi;
           cold = cold | owed; MAY_CRASH(died)
       };
       atomic { settle(owed); owed = 0; MAY_CRASH(died) };
       if
       :: late -> atomic { cold = cold & ~late; MAY_CRASH(died) }; atomic { forget_orphans(late); late = 0 }
       :: else
       fi;
       atomic { announce(batch); MAY_CRASH(died); inbox = inbox & ~batch };
told:  atomic {
           batch = 0;
           if
           :: holder == _pid && inbox -> goto next    /* what was refused, and what has come meanwhile */
           :: holder == _pid && !inbox -> holder = 0
           :: holder != _pid
           fi
       };
       if
       :: false ->
died:     atomic { redeliver(); batch = 0; done = 0; owed = 0; late = 0 }
       :: true
       fi
    od
}

/* core/merging.py: each id once, nothing acknowledged, nothing behind a message that is on its way to cold. */
inline merge() {
    found = (hot_ids | cold_ids) & ~acked_ids; before = found;
#ifndef BUG_OVERTAKING
    least = 255;
    for (i : 0 .. IDS - 1) {
        least = (HAS(pending & ~(hot_ids | cold_ids | acked_ids), i) && sequence[i] < least -> sequence[i] : least)
    };
    for (i : 0 .. IDS - 1) { found = (sequence[i] >= least -> found & ~(1 << i) : found) };
#endif
    left = before != found; before = 0; least = 0; i = 0
}

/* core/merging.py: nothing behind the last of what the first look saw. first: all that this look saw */
inline within() {
    least = 0; hot_ids = found;
    for (i : 0 .. IDS - 1) { least = (HAS(first, i) && sequence[i] > least -> sequence[i] : least) };
    for (i : 0 .. IDS - 1) { found = (sequence[i] > least -> found & ~(1 << i) : found) };
    left = left || hot_ids != found; first = hot_ids; least = 0; i = 0
}

inline read_hot() {
    hot_ids = IN_HOT; pending = PENDING; only_hot = cold_empty && !PENDING;
    changed = watch[me] == 2; watch[me] = 1; cold_ids = 0; acked_ids = 0; left = false
}

#define QUICK (me == 0 && DEVICES > 1)    /* its fetch is one step: fewer states */
#define FIRST(set) (set & -(set))
#define ONE (ONE_PAGE && !QUICK)
#define MORE (ONE && IN_HOT != FIRST(IN_HOT))

/* The first look answers the pokes before it; a page that may leave something out counts as cut short. */
inline answer() {
    if
    :: looked
    :: else ->
       looked = true;
#ifdef BUG_DEAD_FETCH_ANSWERS
       cut = (ONLINE && MORE -> 1 + me : 0);
#else
       cut = (ONLINE && (MORE || !only_hot && (!fetched || cut)) -> 1 + me : 0);
#endif
       fetched = true; marked = cut != 0
    fi
}

/* HotQueue.note_end and note_cut, and what the device gets; a fetch may die before. */
inline note() {
    if
    :: true -> left = left || ONE && found != FIRST(found);
#ifdef BUG_CUT_ANSWERS
       left = false;
#endif
       if
       :: !left -> cut = (cut == 1 + me -> 0 : cut)
       :: left && !marked && ONLINE -> cut = 1 + me
       :: else
       fi;
       found = (ONE -> FIRST(found) : found)
    :: ONE && FAULT; found = 0
    fi;
    left = false; marked = false
}

#if ONE_FILE && !defined(BUG_UNKNOWN_HOLDS_UP)
#define LEFT (GONE | ~(KNOWN | cold) & ALL)    /* without a record and a message, it has left with both */
#else
#define LEFT GONE
#endif

inline read_acked() {    /* and note_cold_empty */
#ifdef BUG_PENDING_NOT_ASKED
    acked_ids = cold_ids & GONE;
#else
    acked_ids = (cold_ids | pending) & LEFT;
#endif
    cold_empty = cold_empty || !cold_ids && !pending && watch[me] == 1 && !PENDING
}

inline fetch() {    /* core/queue.py */
    d_step { seen_before = seen; away_before = away; looked = false };
    do
    ::
#ifndef BUG_COLD_FIRST
       d_step { read_hot(); answer() };
       if
       :: only_hot -> found = hot_ids
       :: else -> cold_ids = cold; d_step { read_acked(); merge() }
       fi;
#else
       first = cold; d_step { read_hot(); answer(); cold_ids = first; acked_ids = cold_ids & GONE; merge() };
#endif
#ifdef BUG_ONE_LOOK
       break
#else
       if
       :: !(found & ~hot_ids) -> break
       :: else -> d_step { first = found; read_hot() };
          if
          :: !changed -> break
          :: changed && only_hot -> d_step { found = hot_ids; within() }
          :: else -> cold_ids = cold; d_step { read_acked(); merge(); within() }
          fi;
          if
          :: found || !first -> break
          :: else    /* other mail has come instead */
          fi
       fi
#endif
    od;
    atomic { judge_batch(); note(); hot_ids = 0; cold_ids = 0; acked_ids = 0; pending = 0; first = 0; least = 0; i = 0;
             watch[me] = 0; changed = false; only_hot = false; seen_before = 0; away_before = 0 }
}

inline judge_batch() {
    promise(one id for life, found <= ALL);
    promise(acknowledged stays away, (found & away_before) == 0);
    promise(at least once, (seen_before & ~ack_begun & ~found) == 0);
    least = 0;
    for (i : 0 .. MESSAGES - 1) {
        if
        :: HAS(found, i) ->
           promise(in order, sequence[i] > least && ((1 << i) - 1 & sent & ~found & ~ack_begun) == 0); least = sequence[i]
        :: else
        fi
    };
    away = away | seen_before & ack_begun & ~found; seen = (seen | found) & ~away
}

#if ONE_FILE
/* backends/embedded/departures.py: record, message and command go in one step. A record stays as a tombstone if its id
   may come again: under its key, or from the ingress. */
inline acknowledge() {
    atomic {
        cut = (cut -> 3 : 0); ack_begun = ack_begun | found; pushed = pushed & ~found;
        first = found & KNOWN;
#ifndef BUG_COPY_STAYS
        cold = cold & ~found;
#endif
        HOT = HOT & ~found; PENDING = PENDING & ~found; COLD = COLD & ~found; DOUBLE = DOUBLE & ~found;
#ifdef BUG_KEY_FORGOTTEN
        first = (inbox -> first : 0);
#else
#ifdef BUG_FORGOTTEN_UNDER_WAY
        first = first & keyed;
#else
        first = (inbox -> first : first & keyed);
#endif
#endif
        ACKED = ACKED | first; first = 0;
        if :: true -> away = away | found :: FAULT fi;    /* the API may die before it answers */
        found = 0
    }
}
#else
inline acknowledge() {    /* core/queue.py; after each step the API may die */
    atomic {
        cut = (cut -> 3 : 0); ack_begun = ack_begun | found; pushed = pushed & ~found; first = found & ~(HOT | ACKED);
#ifdef BUG_TOMBSTONE_FORGOTTEN
        ACKED_OWED = 0;
#else
        ACKED = ACKED | found & HOT; ACKED_OWED = ACKED_OWED | found & (PENDING | COLD | DOUBLE);
#endif
        HOT = HOT & ~found; PENDING = PENDING & ~found; COLD = COLD & ~found; DOUBLE = DOUBLE & ~found;
        if :: !first -> away = away | found :: first && FAULT; first = 0 :: first fi
    };
    if
    :: !first
    :: first -> atomic { cold = cold & ~first; slow[me] = false; if :: true :: FAULT; first = 0; slow[me] = true fi };
       if
       :: !first
       :: first -> atomic {
              if :: slow[me] :: else -> forget_orphans(first); slow[me] = true fi;
              away = away | found; first = 0
          }
       fi
    fi;
    found = 0
}
#endif

active [DEVICES] proctype Device() {    /* two smart clients, their sockets, and the nodes that hold them */
    byte me = _pid - 1 - PIPELINES, found, first, hot_ids, cold_ids, acked_ids, pending, least, i, seen_before, away_before;
    byte before;
    bool changed, only_hot, looked, left, marked, leaves = true;
    if :: !QUICK -> fetch(); found = 0 :: true fi;    /* it may look before it connects */
    atomic {    /* core/connections.py; the second one may stay for ever */
        if :: true :: !QUICK -> leaves = false fi;
        socket[me] = true; leased[me] = true;
#ifdef BUG_NO_WELCOME
        fetched = true
#else
        poked[me] = IN_HOT || PENDING || !cold_empty; cut = (poked[me] -> 3 : 0);
#ifdef BUG_WELCOME_HUSHES
        fetched = true; cut = 0
#else
        fetched = fetched || !poked[me]    /* others may not have heard their pokes */
#endif
#endif
    };
end:
    do
    :: atomic { poked[me] -> poked[me] = false };
       do
       :: if :: QUICK -> atomic { fetch() } :: !QUICK -> fetch() fi;
          if
          :: !found -> break
          :: else -> if :: QUICK && found == ALL -> found = found & ~1 :: true fi; acknowledge()    /* or the last one only */
          fi;
          if :: ONE -> break :: else fi
       od
    :: atomic { leaves -> socket[me] = false; poked[me] = false };    /* it closes, and its node tells the store */
#ifdef BUG_OLD_SOCKET
       atomic { leased[0] = false; leased[1] = false; break }
#else
       atomic { leased[me] = false; break }
#endif
    :: atomic { FAULT; socket[me] = false; poked[me] = false };       /* its node dies, and its lease runs out */
#ifdef BUG_LEASES_LAST
       break
#else
       atomic { leased[me] = false; break }
#endif
    od;
}

/* HotQueue.end_move */
inline end_move() {
    late = batch & GONE; COLD = COLD | batch & IN_HOT; HOT = HOT & ~batch; DOUBLE = DOUBLE & ~batch; cold_changed()
}

active [MIGRATORS] proctype Migrator() {    /* core/migrating.py; called by nodes, sweepers and people */
    byte batch, late;
end:
    do
#if ONE_FILE
    :: atomic { !ONLINE && IN_HOT ->    /* begin_move does all, for a page; the order within hot stays */
           batch = IN_HOT; if :: true :: batch = FIRST(batch) fi;
           cold = cold | batch; COLD = COLD | batch;
#ifndef BUG_MOVED_SILENTLY
           announce(batch);
#endif
           HOT = HOT & ~batch; DOUBLE = DOUBLE & ~batch; cold_changed(); batch = 0
       }
#else
    :: atomic { !ONLINE && IN_HOT && (mover == 0 || mover == _pid) ->    /* begin_move */
           mover = _pid; batch = IN_HOT; cold_changed();
#ifndef BUG_NOT_MARKED
           DOUBLE = DOUBLE | HOT; HOT = 0;
#endif
           MAY_CRASH(out)
       };
#ifdef BUG_DELETE_FIRST
       atomic { end_move(); MAY_CRASH(out) };
#endif
       atomic { cold = cold | batch; MAY_CRASH(out) };
       atomic { announce(batch); MAY_CRASH(out) };
       atomic { end_move(); MAY_CRASH(out); if :: late :: else -> goto done fi };
       cold = cold & ~late;
done:  atomic { if :: mover == _pid -> mover = 0 :: else fi };
out:   atomic { batch = 0; late = 0;    /* what has failed keeps its lease, until it runs out or the same one goes on */
#ifdef BUG_LEASE_GIVEN_BACK
           if :: mover == _pid -> mover = 0 :: else fi
#endif
       }
#endif
    od
}

/* Sees at once what is lost; and whenever nothing moves any more, that nothing is left to be done. */
active proctype Judge() {
    do
    :: atomic { sent & ~(ack_begun | inbox | IN_HOT | cold | (inbox | IN_HOT | cold) >> MESSAGES) ->
           promise(accepted is durable, false) }
    :: atomic { timeout ->
           if
#ifdef BUG_POKED_FOR_EVER
           :: READS -> fetched = true; poke()
#else
           :: (IN_HOT || !fetched || cut) && READS -> fetched = true; poke()    /* the sweeper pokes again */
#endif
           :: mover -> mover = 0             /* the lease of a migrator that has failed runs out */
#ifndef BUG_NO_ORPHANS
           :: ACKED_OWED && mover == 0 ->    /* the sweeper does what a worker that died has left */
              cold = cold & ~ACKED_OWED; forget_orphans(ACKED_OWED)
#endif
           :: else -> break
           fi
       }
    od;
    atomic {
        promise(one id for life, (IN_HOT | cold) <= ALL);
        promise(nothing is stuck, !inbox && !holder && !mover && !IN_HOT && !PENDING && (!READS || !(cold & ~GONE)));
        promise(nothing is stuck, (cold & ~ack_begun & ~pushed) == 0);
        promise(one id for life, (cold & GONE) == 0 && !ACKED_OWED)
    }
}

/* Sleeping, ringing and watching: Idle (idle.h) over workers like those of worker.cc and worker_idle.cc.

   A fiber that runs may spawn, wake another into the next-slot, send to another worker's inbox, arm a
   timer, end, or be stuck for ever (but not on every worker): what is left behind a stuck worker is then
   exactly what somebody else must start. A spawner from outside injects; with -DSTOP it stops the runtime
   in the end.

   Demanded when nothing moves any more: no work is left anywhere while a worker sleeps, neither in a queue,
   nor in the next-slot of a stuck worker, nor as a timer of its that is due; whenever a worker sleeps while
   another is busy there is a watcher, and otherwise no timed sleep; the counts are right. With -DSTOP:
   nobody sleeps.

   What is left out, and why that shows as much:
     * Idle::find_work spins before it sleeps: that is a delay, and then another round.
     * A watcher's look that would find nothing happens LOOKS times at most. It changes nothing but that the
       watcher is awake for a moment, which a ring in vain does as well.
     * A queue is a count of fibers that have not started. Woken ones differ only by ringing less: with
       -DWOKEN two in a queue are not worth a ring, as are fewer than kReadyWorthARing of them.
     * Thieves take one or all, where the queues give a half: all that can be of two.

   -DFINE takes every access alone. Otherwise some are JOINED into one step, because what others do in
   between could as well come before or behind:
     * all that take_in() brings, and all that look_again() looks at: what comes between two of them is
       missed, as if it had come behind the last; whoever brought it has published it behind the announcement,
       and rings.
     * the count of sleepers, a word, and its doorbell: the count is never less than the words say, so a look
       at it alone never hides a sleeper; a doorbell that comes late wakes in vain, once more.
     * a search: it may be refused, or find everything; a thief that is late finds less, as does one refused.
     * waking up and setting the word: whoever claims a sleeper in between could have done so before it woke.
   Not joined are announcement and look, publication and look, and who takes and gives the watcher's token
   back.

   Size: WORKERS; FROM_OUTSIDE fibers that are injected; FROM_INSIDE things that fibers do. Two workers are
   searched with two of each, and with one of each in every step. Three workers begin asleep
   (-DBEGIN_ASLEEP: how they got there is the same for each, and the two-worker searches have it), with one
   fiber from outside and two things from inside: every pair of kinds, moved work and due timers among them.
   With two injected fibers the one thing from inside is searched by kind, ALLOW_SPAWN, _WAKE, _SEND and
   _TIMER: it is of one kind only, so the kinds together are the whole. More things at once are left to
   tests/model/idle_test.cc.

   Planted: PLANT_NO_SECOND_LOOK     sleeps without looking again behind the announcement
            PLANT_NO_STOP_LOOK       looks again, but not for the stop flag (-DSTOP)
            PLANT_NO_WATCHER         who goes to sleep while others are busy does not become the watcher
            PLANT_LEFT_POST          a watcher that begins to run leaves its post to nobody
            PLANT_FORGETFUL          who gives the watcher's token back does not look again
            PLANT_STORE_CLAIM        a ringer claims a sleeper by a store
            PLANT_NO_SLOTS           the watcher does not look into next-slots
            PLANT_NO_TIMERS          the watcher does not fire timers */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef FROM_OUTSIDE
#define FROM_OUTSIDE 2
#endif
#ifndef FROM_INSIDE
#define FROM_INSIDE 2
#endif
#ifndef STUCK
#define STUCK (WORKERS - 1)
#endif
#ifndef LOOKS
#define LOOKS 0
#endif
#if !defined(ALLOW_SPAWN) && !defined(ALLOW_WAKE) && !defined(ALLOW_SEND) && !defined(ALLOW_TIMER)
#define ALLOW_SPAWN
#define ALLOW_WAKE
#define ALLOW_SEND
#define ALLOW_TIMER
#endif

/* Steps that only -DFINE takes one by one. */
#ifdef FINE
#define JOINED
#else
#define JOINED atomic
#endif

/* Idle */
#define kAwake 0
#define kAsleep 1
#define kRung 2
#define kRungAsWatcher 3
#ifdef BEGIN_ASLEEP
byte word[WORKERS] = kAsleep;            /* Slot::word */
byte sleepers = WORKERS, busy = 0;
#else
byte word[WORKERS];
byte sleepers = 0, busy = WORKERS;
#endif
bit watches[WORKERS];                    /* Slot::watches */
byte searchers;
bit watcher;                             /* the token is taken */

/* The host: what there is to do, and where. */
byte injected;
byte queue[WORKERS];                     /* unstarted_ and ready_ */
bit next_slot[WORKERS];
byte inbox[WORKERS];                     /* ready_inbox_ */
#define kNoTimer 0
#define kArmed 1
#define kDue 2
byte timer[WORKERS];
bit doorbell[WORKERS];
bit stopping;

/* What the model itself counts. */
byte things_left = FROM_INSIDE, looks_left = LOOKS, stuck_count;
bit is_asleep[WORKERS], is_timed[WORKERS], is_stuck[WORKERS], is_gone[WORKERS];

#define other(worker, distance) ((worker + distance) % WORKERS)
#define queues_empty(worker) (queue[worker] == 0 && !next_slot[worker])
#ifdef PLANT_NO_SLOTS
#define slot_stranded(worker) 0
#else
#define slot_stranded(worker) next_slot[worker]
#endif
#ifdef PLANT_NO_TIMERS
#define timer_stranded(worker) 0
#else
#define timer_stranded(worker) (timer[worker] == kDue)
#endif
#define has_stranded(worker) \
  (!is_asleep[worker] && (queue[worker] != 0 || slot_stranded(worker) || timer_stranded(worker)))
#if WORKERS == 2
#define somebody_stranded(self) has_stranded(other(self, 1))
#else
#define somebody_stranded(self) (has_stranded(other(self, 1)) || has_stranded(other(self, 2)))
#endif
#define look_is_worth(self) (busy == 0 || injected != 0 || somebody_stranded(self))

/* Idle::claim_sleeper. The load and the CAS behind it are one step: who loses the CAS goes on as if it had
   seen the word change. */
#define asleep_at(place) (place < WORKERS && word[other(preferred, place)] == kAsleep)
inline claim_sleeper(role, preferred) {
  if
  :: atomic { sleepers == 0 -> rang = 0 }
  :: atomic { sleepers != 0 -> rang = 0 }
     do
#ifdef PLANT_STORE_CLAIM
     :: asleep_at(i) ->
        JOINED {
          word[other(preferred, i)] = role; sleepers--; doorbell[other(preferred, i)] = 1; rang = 1; i = 0
        }
        break
#else
     :: JOINED { atomic { asleep_at(i) -> word[other(preferred, i)] = role }
          sleepers--; doorbell[other(preferred, i)] = 1; rang = 1; i = 0 }
        break
#endif
     :: atomic { i < WORKERS && !asleep_at(i) -> i++ }
     :: atomic { i == WORKERS -> i = 0 } break
     od
  fi
}

/* Idle::rung */
inline ring_one(preferred) { claim_sleeper(kRung, preferred) }

/* Idle::watched. With an exact count of sleepers somebody_sleeps() says what the count says. */
inline make_sure_of_watcher() {
  do
#ifdef FINE
  :: sleepers == 0 -> break
  :: sleepers != 0 ->
     if
     :: watcher -> break
     :: else ->
        do
        :: atomic { i < WORKERS && word[i] != kAsleep -> i++ }
        :: else -> break
        od;
        if
        :: atomic { i == WORKERS -> i = 0 } break
        :: atomic { i < WORKERS && watcher -> i = 0 } break
        :: atomic { i < WORKERS && !watcher -> i = 0; watcher = 1 }
        fi
     fi;
#else
  :: sleepers == 0 || watcher -> break
  :: atomic { sleepers != 0 && !watcher -> watcher = 1 }
#endif
     claim_sleeper(kRungAsWatcher, 0);
     if
     :: rang -> break
     :: else ->
        watcher = 0;
#ifdef PLANT_FORGETFUL
        break
#endif
     fi
  od
}

/* Idle::reach */
inline reach(worker) {
  if
  :: JOINED { atomic { word[worker] == kAsleep -> word[worker] = kRung } sleepers--; doorbell[worker] = 1 }
  :: else
  fi
}

/* Idle::watch_if_needed */
inline watch_if_needed() {
#ifndef PLANT_NO_WATCHER
  JOINED {
    if
    :: busy != 0 ->
       d_step { if :: !watcher -> watcher = 1; watches[self] = 1 :: else fi }
    :: else
    fi
  }
#else
  skip
#endif
}

inline stop_watching() { d_step { watches[self] = 0; watcher = 0 } }

/* Worker::take_in, with the doorbell: completions that came are reaped first. */
inline take_in() {
  JOINED {
    d_step { doorbell[self] = 0; queue[self] = queue[self] + inbox[self]; inbox[self] = 0 }
    d_step { if :: timer[self] == kDue -> timer[self] = kNoTimer; queue[self]++ :: else fi }
    d_step { queue[self] = queue[self] + injected; injected = 0 }
  }
}

/* Worker::steal_into: one or all of a victim's fibers. */
inline steal_from(victim) {
  if
  :: d_step { queue[victim] > 0 -> queue[victim]--; queue[self]++ }
  :: d_step { queue[victim] > 1 -> queue[self] = queue[self] + queue[victim]; queue[victim] = 0 }
  :: queue[victim] == 0
  fi
}

/* Idle::search. Without -DFINE it is one step, and whether it may search is left open. */
inline search() {
#ifdef FINE
  if
  :: invited -> may_search = 1
  :: else ->
     d_step { if :: 2 * searchers < busy -> searchers++; may_search = 1 :: else fi }
  fi;
#else
  if
  :: may_search = 1
  :: !invited
  fi;
#endif
  if
  :: may_search ->
     JOINED {
       v = 1;
       do
       :: v < WORKERS && queue[self] == 0 -> steal_from(other(self, v)); v++
       :: else -> break
       od;
       v = 0;
       may_search = 0
#ifdef FINE
       ;
       if :: invited :: else -> searchers-- fi
#endif
     }
  :: else
  fi
}

/* Worker::rescue: what has not moved since the last look; a worker that is only slow may be taken for one
   that is stuck. */
inline rescue() {
  v = 1;
  do
  :: JOINED {
       v < WORKERS ->
       steal_from(other(self, v));
       d_step {
         if :: slot_stranded(other(self, v)) -> next_slot[other(self, v)] = 0; queue[self]++ :: else fi
       }
       d_step {
         if :: timer_stranded(other(self, v)) -> timer[other(self, v)] = kNoTimer; queue[self]++ :: else fi
       }
       v++
     }
  :: JOINED { v == WORKERS -> v = 0; take_in() }
     break
  od
}

/* Worker::anything: one load each, in this order. */
inline look_again() {
  JOINED {
    again = 0;
#ifndef PLANT_NO_SECOND_LOOK
#ifndef PLANT_NO_STOP_LOOK
    if :: stopping -> again = 1 :: else fi;
#endif
    if :: !again && (inbox[self] != 0 || doorbell[self]) -> again = 1 :: else fi;
    if :: !again && (injected != 0 || !queues_empty(self)) -> again = 1 :: else fi;
    v = 1;
    do
    :: atomic { v < WORKERS && !again -> again = queue[other(self, v)] != 0; v++ }
    :: else -> break
    od;
    v = 0;
    if :: !again && timer[self] == kDue -> again = 1 :: else fi
#endif
  }
}

/* The end of Idle::sleep. */
inline wake_up() {
  atomic {
    invited = again || word[self] == kRung;
    if :: word[self] == kRungAsWatcher -> watches[self] = 1 :: else fi;
    rang = word[self] == kAsleep;
    word[self] = kAwake;
    again = 0
  }
  if :: rang -> sleepers--; rang = 0 :: else fi
}

/* Worker::push_unstarted and announce_unstarted. */
inline spawn_one() {
  d_step { first = queue[self] == 0; queue[self]++ }
#ifdef WOKEN
  make_sure_of_watcher();
#else
  if
  :: first -> make_sure_of_watcher()
  :: else -> ring_one(other(self, 1))
  fi
#endif
}

/* Worker::make_ready and announce_ready: the one that was in the slot goes into the queue. */
inline wake_one() {
  d_step { if :: next_slot[self] -> queue[self]++ :: else -> next_slot[self] = 1 fi }
  make_sure_of_watcher()
}

inline do_something() {
  if
#ifdef ALLOW_SPAWN
  :: spawn_one()
#endif
#ifdef ALLOW_WAKE
  :: wake_one()
#endif
#ifdef ALLOW_SEND
  :: inbox[other(self, 1)]++; reach(other(self, 1))
#endif
#ifdef ALLOW_TIMER
  :: atomic { timer[self] == kNoTimer -> timer[self] = kArmed }
#endif
  fi
}

#ifdef WOKEN
#define share_left() (injected != 0)
#else
#define share_left() (queue[self] > 1 || injected != 0)
#endif

proctype worker(byte self) {
  byte i, v;
  bit rang, invited, may_search, again, first, was_watcher;
#ifdef BEGIN_ASLEEP
  atomic { is_asleep[self] = 1; goto end_asleep }
#else
  goto running;                          /* with nothing to run */
#endif

running:                                 /* Worker::pick: the next-slot, then the queue */
  if
  :: atomic { next_slot[self] -> next_slot[self] = 0 }
  :: atomic { !next_slot[self] && queue[self] > 0 -> queue[self]-- }
  :: atomic { queues_empty(self) -> busy--; goto idle }
  fi;
fiber:                                   /* one runs: it does something, ends, or never comes back */
  if
  :: atomic { things_left > 0 -> things_left-- } do_something(); goto fiber
  :: atomic { stuck_count < STUCK -> stuck_count++; is_stuck[self] = 1; goto stuck }
  :: goto running
#ifdef STOP
  :: stopping -> goto gone               /* the turn is over: Worker::pick_in_new_turn(true) */
#endif
  :: JOINED { injected != 0 || inbox[self] != 0 || timer[self] == kDue -> take_in() }
     if :: share_left() -> ring_one(other(self, 1)) :: else fi;
     goto running
  fi;

idle:                                    /* Idle::find_work; the count of busy ones has been lowered */
#ifdef STOP
  if
  :: stopping ->
     if :: watches[self] -> stop_watching() :: else fi;
     goto gone
  :: else
  fi;
#endif
  JOINED {
    take_in();
    if :: !queues_empty(self) -> goto begin :: else fi
  }
  JOINED {
    search();
    if :: !queues_empty(self) -> goto begin :: else fi;
    invited = 0;
    if :: watches[self] -> skip :: else -> goto announce fi
  }
  if
  :: busy == 0 ->
     stop_watching();
#ifndef PLANT_FORGETFUL
     watch_if_needed()
#endif
  :: else
  fi;

announce:
  JOINED { sleepers++; word[self] = kAsleep } /* Idle::sleep */
  look_again();
  if
  :: !again ->
     JOINED { watch_if_needed(); atomic { is_asleep[self] = 1; is_timed[self] = watches[self] } }
end_asleep:
     JOINED {                            /* Worker::sleep */
       if
       :: doorbell[self] || timer[self] == kDue || (is_timed[self] && look_is_worth(self))
       :: atomic { is_timed[self] && looks_left > 0 -> looks_left-- }
       fi;
       atomic { is_asleep[self] = 0; is_timed[self] = 0 }
       take_in();
       wake_up()
     }
  :: else -> JOINED { wake_up() }
  fi;
  if
  :: watches[self] && busy != 0 ->
     rescue();
     if :: !queues_empty(self) -> goto begin :: else fi
  :: else
  fi;
  goto idle;

begin:                                   /* Idle::begin_running */
  atomic { busy++; invited = 0; was_watcher = watches[self] }
  if :: was_watcher -> stop_watching() :: else fi;
  if
#ifdef PLANT_LEFT_POST
  :: !was_watcher && (timer[self] != kNoTimer || !queues_empty(self)) -> make_sure_of_watcher()
#else
  :: was_watcher || timer[self] != kNoTimer || !queues_empty(self) -> make_sure_of_watcher()
#endif
  :: else
  fi;
  atomic { was_watcher = 0; if :: share_left() -> skip :: else -> goto running fi }
  ring_one(0);
  goto running;

stuck:
end_stuck:
  false;
gone:
  is_gone[self] = 1
}

/* Core::inject, by a thread that is no worker; then Core::stop_workers. */
proctype spawner() {
  byte i, n;
  bit rang;
  do
  :: n < FROM_OUTSIDE -> n++; injected++; ring_one(0)
  :: break
  od;
#ifdef STOP
  stopping = 1;                          /* Idle::ring_all */
  do
  :: i < WORKERS ->
     if
     :: JOINED { atomic { word[i] == kAsleep -> word[i] = kRung } sleepers--; doorbell[i] = 1 }
     :: else
     fi;
     i++
  :: else -> break
  od
#endif
}

#ifdef ALLOW_TIMER
proctype clock() {
end:
  do
  :: d_step { timer[0] == kArmed -> timer[0] = kDue }
  :: d_step { timer[1] == kArmed -> timer[1] = kDue }
#if WORKERS > 2
  :: d_step { timer[2] == kArmed -> timer[2] = kDue }
#endif
  od
}
#endif

/* Looks when nothing moves any more. */
proctype judge() {
  byte i, asleep, timed;
  bit work;
end:
  timeout ->
  d_step {
    do
    :: i < WORKERS ->
       assert(is_asleep[i] + is_stuck[i] + is_gone[i] == 1);
       asleep = asleep + is_asleep[i];
       timed = timed + is_timed[i];
       work = work || queue[i] != 0 || next_slot[i] || timer[i] != kNoTimer;
       work = work || (is_asleep[i] && inbox[i] != 0);
       i++
    :: else -> break
    od
  }
#ifdef STOP
  assert(asleep == 0);
#else
  assert(asleep == 0 || (!work && injected == 0));
  assert(sleepers == asleep && busy == WORKERS - asleep && searchers == 0);
  assert(timed == watcher);
  assert(watcher == (asleep != 0 && stuck_count != 0));
#endif
}

init {
  atomic {
    byte number;
    for (number : 0 .. WORKERS - 1) { run worker(number) }
    run spawner();
#ifdef ALLOW_TIMER
    run clock();
#endif
    run judge()
  }
}

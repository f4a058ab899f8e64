/* A group with max_running: as it will be built into Group; there is no such limit in the code yet.

   The limit is 1. The parent P runs, spawns C, which is held back, and may join it; an outsider J joins C's
   handle as well; child D ends meanwhile, and starts the next of those held back. The owner may cancel the
   group, joins it and destroys it. Who joins a child that is held back starts it, by changing its claim
   word from held to runnable: who wins pushes it, and only the winner touches the group afterwards; the
   list of those held back skips entries that are no longer held.

   Demanded: C is pushed once and runs once; everybody returns; nobody touches the group when it is
   destroyed.

   Planted: PLANT_START_TWICE        the list starts C without asking its claim word
            PLANT_JOIN_WAITS         a join does not start it: with a limit of 1 nobody does
            PLANT_COUNT_UNLOCKED     a child's end lowers the counts without the lock
            PLANT_LOOK_THEN_LOCK     a join looks whether C is held, then locks the group to move it */

bit group_lives = 1, locked;
byte count = 2, running_count = 2;       /* P and D, from the time before the limit */
bit is_listed;                           /* C, among those held back */
#define kUnmade 0
#define kHeld 1
#define kRunnable 2
byte state;                              /* C's claim word */
byte pushes, runs;
bit is_spawned, has_ended;               /* C's */
bit joiner_waits, joiner_claimed;
bit parent_done, outsider_done;

inline lock() { atomic { !locked -> assert(group_lives); locked = 1 } }
inline unlock() { d_step { assert(group_lives && locked); locked = 0 } }

/* Pushes C when `starts` says that we won it. */
inline push() {
  if
  :: starts -> d_step { pushes++; assert(pushes == 1) }
  :: else
  fi;
  starts = 0
}

/* Under the lock: a running child has ended. */
inline start_next() {
  if
  :: is_listed && running_count < 1 ->
     is_listed = 0;
#ifdef PLANT_START_TWICE
     d_step { state = kRunnable; starts = 1; running_count++ }
#else
     d_step { if :: state == kHeld -> state = kRunnable; starts = 1; running_count++ :: else fi }
#endif
  :: else
  fi
}

inline end_child() {
#ifdef PLANT_COUNT_UNLOCKED
  d_step { assert(group_lives); running_count--; count-- }
  lock();
#else
  lock();
  d_step { running_count--; count-- }
#endif
  start_next();
  is_last = count == 0 && joiner_waits;
  unlock();                              /* the last touch */
  push();
  if :: is_last -> joiner_claimed = 1 :: else fi
}

inline join_child() {
  if
  :: has_ended
  :: else ->
#ifndef PLANT_JOIN_WAITS
#ifdef PLANT_LOOK_THEN_LOCK
     if
     :: state == kHeld ->
        lock();
        d_step {
          if
          :: is_listed && state == kHeld -> is_listed = 0; state = kRunnable; starts = 1; running_count++
          :: else
          fi
        }
        unlock()
     :: else
     fi;
#else
     d_step { if :: state == kHeld -> state = kRunnable; starts = 1 :: else fi }
     if
     :: starts ->                        /* the group cannot end before C, which is not pushed yet */
        d_step { assert(group_lives); running_count++ }
     :: else
     fi;
#endif
     push();
#endif
     has_ended
  fi
}

proctype parent() {
  bit starts, is_last;
  lock();
  d_step {
    count++;
    if
    :: running_count < 1 -> running_count++; state = kRunnable; pushes++
    :: else -> state = kHeld; is_listed = 1
    fi
  }
  unlock();
  is_spawned = 1;
  if
  :: join_child()
  :: skip
  fi;
  end_child();
  parent_done = 1
}

proctype child() {
  bit starts, is_last;
  pushes > 0;
  d_step { assert(state == kRunnable); runs++; assert(runs == 1) }
  lock();
  is_listed = 0;                         /* started by a join, it is still on the list */
  unlock();
  has_ended = 1;
  end_child()
}

proctype other_child() {
  bit starts, is_last;
  end_child()
}

proctype outsider() {
  bit starts;
  is_spawned;
  join_child();
  outsider_done = 1
}

proctype owner() {
  lock();
  if
  :: count == 0 -> unlock()
  :: else -> joiner_waits = 1; unlock(); joiner_claimed
  fi;
  group_lives = 0
}

init {
  atomic { run parent(); run other_child(); run child(); run outsider(); run owner() }
  parent_done && outsider_done && !group_lives;
  assert(runs == 1 && running_count == 0 && count == 0)
}

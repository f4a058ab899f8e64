/* Who fires the timers of timers.pml: a worker in its turns, and the watcher.

   Before it includes this file a model defines fire(wheel, at), what the timer does when it fires, under
   the lock of the wheel in which it was due at the moment `at`: it sets `wakes` when it has claimed fiber
   0, and may use `moved`.

   Planted here: PLANT_FIRE_UNLOCKED    pops what is due under the lock, fires it when the lock is given back
                 PLANT_BLIND_SLEEP      a worker sleeps until what was earliest before it announced */

/* Timers::fire_due, by anybody; then WakeBatch::deliver. */
inline fire_due(wheel) {
  atomic { at = now; fired = earliest[wheel] <= at }
  if
  :: fired ->
     atomic { !wheel_locked[wheel] ->
       wheel_locked[wheel] = 1;
       fired = is_armed[wheel] && due_at <= at;
       if :: fired -> assert(timer_lives); is_armed[wheel] = 0 :: else fi
     }
#ifdef PLANT_FIRE_UNLOCKED
     unlock_wheel(wheel);
     if :: fired -> fire(wheel, at) :: else fi;
#else
     if :: fired -> fire(wheel, at) :: else fi;
     unlock_wheel(wheel);
#endif
     if :: wakes -> make_ready(0) :: else fi;
     atomic { fired = 0; wakes = 0 }
  :: else
  fi;
  at = 0
}

/* A worker's turns: what is due, then asleep until what is earliest, or until it is rung. A fiber that arms
   a timer does so on its worker, which therefore looks again before it sleeps. */
bit doorbell[WHEELS];
#ifdef ARMS_OUTSIDE
bit sleep_word[WHEELS];                  /* Idle's: 1 is asleep */
#define announce(worker) sleep_word[worker] = 1
#else
#define announce(worker) skip
#endif

proctype turns(byte self) {
  byte until, at, moved;
  bit fired, wakes;
end:
  do
  :: fire_due(self);
#ifdef PLANT_BLIND_SLEEP
     until = earliest[self];
     announce(self);
#else
     announce(self);                     /* Idle::sleep; then Worker::anything, and Worker::sleep */
     until = earliest[self];
#endif
end_asleep:
     atomic { doorbell[self] || until <= now ->
       doorbell[self] = 0;
       until = 0;
#ifdef ARMS_OUTSIDE
       sleep_word[self] = 0
#endif
     }
  od
}

/* The watcher's look at a worker that it takes for stuck: Worker::rescue. It may come at any time. */
proctype watcher(byte wheel) {
  byte at, moved;
  bit fired, wakes;
  fire_due(wheel)
}

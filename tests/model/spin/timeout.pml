/* Timeout: the deadline of a level, moved to later by one CAS, to earlier by arming anew, perhaps on
   another worker; against firing by the worker's own turn and by the watcher.

   The fiber makes the level, restarts it twice (once with -DONE_RESTART), waits for nothing but its end,
   and leaves it; at every call it may be on either worker.

     who         plays
     fiber       TimeoutLevel: constructor, restart(), destructor       timeout.cc
                 Level::leave(), refresh_cancel()                       level.cc
     turns       Timers::fire_due() by the owner                        timer_turns.pml
     watcher     the same, by another                                   timer_turns.pml
     fire        TimeoutLevel::on_fire()                                timeout.cc

   Demanded: no firing before the deadline that was wanted last; the wait ends; nobody touches the timer
   when it has been taken back; behind the level nothing of its request is left.

   Planted: PLANT_FIRE_UNLOCKED (timer_turns.pml), PLANT_HINT_LATE (timers.pml)
            PLANT_MOVE_BY_STORE      restart to later is a store: an expiry that came before is lost
            PLANT_EXPIRE_BY_STORE    on_fire looks at the deadline, then says expired in a second step
            PLANT_HOME_OF_FIBER      disarm takes the lock of the worker that the fiber runs on
            PLANT_NOT_DISARMED       the level is left without taking the timer back
            PLANT_NO_SECOND_LOOK     withdraws the request, and does not look whether it has expired again
            PLANT_KEEPS_REQUEST      restart lowers the level and leaves the fiber's request */

#define LAST 2
#define FIBERS 1
#include "fibers.pml"
#include "timers.pml"

byte wanted;                             /* TimeoutLevel::wanted_, */
bit is_expired;                          /* and its bit kExpired */
bit is_raised;                           /* the level */

/* TimeoutLevel::on_fire, under the wheel's lock. `moved`: the deadline that it saw, if that is later. */
inline fire(wheel, at) {
#ifdef PLANT_EXPIRE_BY_STORE
  moved = wanted;
  if
  :: moved > at -> d_step { due_at = moved; is_armed[home] = 1 }
  :: else -> is_expired = 1
  fi;
#else
  atomic {                               /* the CAS sees what was looked at, or looks again */
    assert(timer_lives && !is_taken_back);
    moved = kNever;
    if
    :: wanted > at -> moved = wanted; insert(home, moved)
    :: else -> is_expired = 1
    fi
  }
#endif
  if
  :: is_expired && !is_raised ->
     atomic { assert(wanted <= now); is_raised = 1 }
     assert(timer_lives);
     request(0, wakes)
  :: else
  fi;
  moved = 0
}

#include "timer_turns.pml"

inline commit_wait(fiber, parks) {
  park(fiber, parks);
  if :: !parks -> make_ready(fiber) :: else fi
}
#include "workers.pml"

/* The fiber may be on either worker; there it arms the timer, and the worker will look before it sleeps. */
inline arm(deadline) {
  atomic {
    armed_at = deadline;
    if :: home = 0 :: home = 1 fi;
    is_taken_back = 0
  }
  atomic { !wheel_locked[home] -> wheel_locked[home] = 1; insert(home, deadline) }
  atomic { unlock_wheel(home); doorbell[home] = 1 }
}

/* refresh_cancel: clear, then look at the levels that the fiber is in: there is this one, or none. The
   timer may have fired again since it was armed. */
inline refresh_cancel(is_inside) {
  cancel_asked[0] = 0;
#ifndef PLANT_NO_SECOND_LOOK
  if
  :: is_inside && is_raised -> cancel_asked[0] = 1
  :: else
  fi
#endif
}

inline take_back() {
#ifdef PLANT_HOME_OF_FIBER
  if :: home = 0 :: home = 1 fi;
#endif
  disarm()
}

/* TimeoutLevel::restart */
inline restart(deadline) {
  has_moved = 0;
#ifdef PLANT_MOVE_BY_STORE
  had_expired = is_expired;
  if
  :: !had_expired && deadline >= armed_at -> d_step { wanted = deadline; is_expired = 0; has_moved = 1 }
  :: else
  fi;
#else
  atomic {
    if
    :: !is_expired && deadline >= armed_at -> wanted = deadline; has_moved = 1
    :: else
    fi
  }
#endif
  if
  :: has_moved
  :: else ->
     take_back();
     had_expired = is_raised;
     d_step { is_raised = 0; wanted = deadline; is_expired = 0 }
     arm(deadline);
#ifndef PLANT_KEEPS_REQUEST
     if :: had_expired -> refresh_cancel(1) :: else fi
#endif
  fi
}

proctype fiber(byte self; byte first; byte second; byte third) {
  byte armed_at;
  bit has_moved, had_expired;
  is_running[self];
  d_step { timer_lives = 1; wanted = first }
  arm(first);
  restart(second);
#ifndef ONE_RESTART
  restart(third);
#endif
  if
  :: cancel_asked[self] && is_raised     /* the wait is over before it began */
  :: else ->
     accepts_cancel[self] = 1;
     leave(self, kWaits);
     assert(is_raised && now >= third)
  fi;
#ifndef PLANT_NOT_DISARMED
  take_back();                           /* ~TimeoutLevel */
#endif
  if :: is_raised -> refresh_cancel(0) :: else fi;
  timer_lives = 0;
  assert(!cancel_asked[self]);
  end_fiber(self)
}

init {
  byte second, third;
  select (second : 1 .. LAST);
#ifdef ONE_RESTART
  third = second;
#else
  select (third : 1 .. LAST);
#endif
  atomic {
    start_fiber(0);
    run worker();                        /* the commit step touches nothing behind the park: one will do */
    run fiber(0, 1, second, third);
    run turns(0);
    run turns(1);
    run watcher(0);
    run clock()
  }
  ended == FIBERS && now == LAST
}

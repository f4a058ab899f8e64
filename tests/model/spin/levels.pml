/* What the one cancel bit of a fiber means when levels nest (level.h): the fiber leaves an inner level, a
   Timeout or a Scope, while that, the outer level, and the fiber's own handle are asking.

     who             plays
     fiber           the inner level's end: under its lock it is marked left;       timeout.cc, group.cc
                     Level::leave(), refresh_cancel()                               level.cc
     inner, outer    who raises a level: the flag, then the bit, under its lock     group.cc, timeout.cc
     handle          ClaimWord::request_end(): the bit and the mark in one step     claim_word.h

   Demanded: a wait under the outer level reports a request of the outer level or of the handle that was
   complete before it; it never reports the inner one's.

   Planted: PLANT_NO_SECOND_LOOK    nobody looks at the outer level again (plant 19 of plant.h)
            PLANT_NO_WITHDRAWAL     the bit stays
            PLANT_LOOK_FIRST        looks at the outer level, then stores what it saw (as plant 13)
            PLANT_LEAVE_UNLOCKED    the level is marked left without its lock (as plant 20)
            PLANT_NO_MARK           the handle's request is not noted in the claim word */

bit is_asked, is_marked;                 /* the claim word: kCancel, kEndingBit */
bit inner_raised, inner_locked, is_left;
bit outer_raised, outer_done, handle_done;

proctype outer() {
  outer_raised = 1;
  is_asked = 1;
  outer_done = 1
}

proctype inner() {
#ifdef PLANT_LEAVE_UNLOCKED
  bit was_left = is_left;
  if :: !was_left -> inner_raised = 1; is_asked = 1 :: else fi
#else
  atomic { !inner_locked -> inner_locked = 1 }
  if :: !is_left -> inner_raised = 1; is_asked = 1 :: else fi;
  inner_locked = 0
#endif
}

proctype handle() {
#ifdef PLANT_NO_MARK
  is_asked = 1;
#else
  d_step { is_asked = 1; is_marked = 1 }
#endif
  handle_done = 1
}

proctype fiber() {
  bit wants, must, sees;
  atomic { !inner_locked -> is_left = 1 }
#ifndef PLANT_NO_WITHDRAWAL
  if
  :: inner_raised ->
#ifdef PLANT_LOOK_FIRST
     d_step { wants = outer_raised || is_marked }
     is_asked = wants
#else
     is_asked = 0;
#ifndef PLANT_NO_SECOND_LOOK
     wants = outer_raised;
     if :: wants || is_marked -> is_asked = 1 :: else fi
#endif
#endif
  :: else
  fi;
#endif
  must = outer_done || handle_done;      /* a wait under the outer level */
  sees = is_asked;
  assert(!must || sees);
  assert(!sees || outer_raised || is_marked)
}

init { atomic { run outer(); run inner(); run handle(); run fiber() } }

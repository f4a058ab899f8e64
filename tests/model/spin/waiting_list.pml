/* The waiting list of one object (wait_list.h). Everything here is done under the object's lock.

   Before it includes this file a model defines WAITERS, the number of its waiters; each has one node, on
   its own stack. Fibers come first, from 0 on; the rest are threads that are no fibers, and need no claim.

   Planted here: PLANT_WAKES_CANCELLED. */

byte waiting[WAITERS];       /* who waits, first come first */
byte waiting_count;
bit node_lives[WAITERS];     /* the frame that holds the node has not returned */
bit is_claimed[WAITERS];     /* WaitNode::claimed */
#define kNobody 255

/* WaitList::push_back, and a node made anew. */
inline push_back(waiter) {
  assert(!node_lives[waiter]);
  node_lives[waiter] = 1;
  is_claimed[waiter] = 0;
  waiting[waiting_count] = waiter;
  waiting_count++
}

/* WaitList::remove: takes the node off if it is on the list. Uses `at`. */
inline remove(waiter) {
  at = 0;
  do :: at < waiting_count && waiting[at] != waiter -> at++ :: else -> break od;
  if
  :: at < waiting_count ->
     do :: at + 1 < waiting_count -> waiting[at] = waiting[at + 1]; at++ :: else -> break od;
     waiting_count--;
     waiting[waiting_count] = 0
  :: else
  fi;
  at = 0
}

/* WaitList::claim_first: one step a node, because only the claim meets others, the cancellers.
   Leaves the waiter in `who`, or kNobody. Uses `at` and `claims`. */
inline claim_first(who) {
  who = kNobody;
  do
  :: d_step { who == kNobody && waiting_count > 0 ->
       who = waiting[0];
       assert(node_lives[who]);
       remove(who);
       claims = 1;
       if
       :: who < FIBERS -> claim(who, claims)
       :: else
       fi;
#ifdef PLANT_WAKES_CANCELLED
       claims = 1;
#endif
       if :: claims -> is_claimed[who] = 1 :: else -> who = kNobody fi;
       claims = 0
     }
  :: else -> break
  od
}

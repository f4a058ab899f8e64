// How model threads sleep: a doorbell, a semaphore, a condition, and waiting until nothing moves.
//
//   model::Event doorbell;
//   doorbell.wait();                                  // until somebody has posted; takes the post
//   model::block_until([&] { return stopped; });      // a condition of the model, not of the code
//
// A thread that sleeps here is not scheduled. When all threads that have not ended do, the schedule
// fails as a deadlock, which names what each of them waits for.
#pragma once

#include <cstddef>

namespace weft::model {

// An eventfd in miniature: posts are not counted, a wait takes what is there.
class Event {
 public:
  void post();
  void wait();

  // A sleep with a timeout, which may end at any moment: returns whether there was a post. A loop
  // of these never becomes quiet; where that matters use block_until.
  bool wait_or_time_out();

 private:
  std::size_t posted_ = 0;
};

class Semaphore {
 public:
  explicit Semaphore(std::size_t count = 0) : count_(count) {}
  void post();
  void wait();

 private:
  std::size_t count_;
};

// A std::mutex in miniature; outside of an exploration nobody waits for it.
class Mutex {
 public:
  void lock();
  void unlock();

 private:
  std::size_t free_ = 1;
};

namespace internal {
void block_until(bool (*predicate)(void*), void* context);
}

// Sleeps until `predicate` holds; when it returns, it holds. Atomic operations inside of it are no
// scheduling points.
template <class Predicate>
void block_until(Predicate predicate) {
  internal::block_until([](void* context) -> bool { return (*static_cast<Predicate*>(context))(); },
                        &predicate);
}

// Sleeps until no other thread can move: all have ended or sleep. One thread of a model may do
// this; it can then check what must hold at rest, and stop the others.
void wait_until_quiet();

}  // namespace weft::model

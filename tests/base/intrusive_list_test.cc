// The list and the queue against std::list and std::deque, and what removing and moving promise.
#include "runtime/base/intrusive_list.h"

#include <algorithm>
#include <array>
#include <deque>
#include <list>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/random.h"

namespace {

using weft::test::Random;

struct Element {
  weft::base::ListNode<Element> node;
  weft::base::ListNode<Element> other_node;
  Element* link = nullptr;
};

using List = weft::base::IntrusiveList<Element, &Element::node>;
using OtherList = weft::base::IntrusiveList<Element, &Element::other_node>;
using Queue = weft::base::IntrusiveQueue<Element, &Element::link>;

std::vector<Element*> contents(const List& list) {
  std::vector<Element*> found;
  for (Element& element : list) found.push_back(&element);
  return found;
}

std::vector<Element*> drain(Queue& queue) {
  std::vector<Element*> found;
  while (Element* element = queue.pop()) found.push_back(element);
  return found;
}

}  // namespace

TEST_CASE("intrusive_list: does what std::list does", "[intrusive_list]") {
  Random random(weft::test::seed());
  std::vector<Element> elements(12);
  List list;
  std::list<Element*> model;
  for (int step = 0; step < 100'000; ++step) {
    Element* element = &elements[random.below(elements.size())];
    const bool linked = std::find(model.begin(), model.end(), element) != model.end();
    if (element->node.linked() != linked) FAIL("linked() is wrong at step " << step);
    switch (random.below(4)) {
      case 0:
        if (linked) break;
        list.push_back(element);
        model.push_back(element);
        break;
      case 1:
        if (linked) break;
        list.push_front(element);
        model.push_front(element);
        break;
      case 2: {
        Element* const expected = model.empty() ? nullptr : model.front();
        if (list.pop_front() != expected) FAIL("pop_front is wrong at step " << step);
        if (expected != nullptr) model.pop_front();
        break;
      }
      default:
        if (list.remove(element) != linked) FAIL("remove is wrong at step " << step);
        model.remove(element);
    }
    if (contents(list) != std::vector<Element*>(model.begin(), model.end())) {
      FAIL("the order is wrong at step " << step);
    }
    if (list.back() != (model.empty() ? nullptr : model.back())) FAIL("back at step " << step);
  }
}

TEST_CASE("intrusive_list: an element may be in a list for each of its nodes", "[intrusive_list]") {
  Element element;
  List list;
  OtherList other;
  list.push_back(&element);
  other.push_back(&element);
  CHECK(list.remove(&element));
  CHECK_FALSE(list.remove(&element));
  CHECK(list.empty());
  CHECK(other.front() == &element);
}

TEST_CASE("intrusive_list: an iterator that has moved on survives the removal",
          "[intrusive_list]") {
  std::array<Element, 5> elements;
  List list;
  for (Element& element : elements) list.push_back(&element);
  for (auto at = list.begin(); at != list.end();) {
    Element& element = *at++;
    if (&element != &elements[2]) list.remove(&element);
  }
  CHECK(contents(list) == std::vector<Element*>{&elements[2]});
}

TEST_CASE("intrusive_list: moving leaves an empty list", "[intrusive_list]") {
  std::array<Element, 3> elements;
  List from;
  for (Element& element : elements) from.push_back(&element);
  List to(std::move(from));
  CHECK(from.empty());
  CHECK(contents(to) == std::vector<Element*>{&elements[0], &elements[1], &elements[2]});
  from = std::move(to);
  CHECK(to.empty());
  CHECK(from.front() == &elements[0]);
}

TEST_CASE("intrusive_queue: does what std::deque does", "[intrusive_queue]") {
  Random random(weft::test::seed());
  std::vector<Element> elements(64);
  std::deque<Element*> free;
  for (Element& element : elements) free.push_back(&element);
  std::array<Queue, 2> queues;
  std::array<std::deque<Element*>, 2> models;
  for (int step = 0; step < 200'000; ++step) {
    const std::size_t which = random.below(2);
    Queue& queue = queues[which];
    std::deque<Element*>& model = models[which];
    const auto action = random.below(40);
    if (action < 19) {
      if (free.empty()) continue;
      Element* element = free.front();
      free.pop_front();
      if (action < 3) {
        queue.push_front(element);
        model.push_front(element);
      } else {
        queue.push(element);
        model.push_back(element);
      }
    } else if (action < 39) {
      Element* const expected = model.empty() ? nullptr : model.front();
      if (queue.front() != expected || queue.pop() != expected) FAIL("pop at step " << step);
      if (expected == nullptr) continue;
      model.pop_front();
      free.push_back(expected);
    } else {
      queue.splice(queues[1 - which]);
      model.insert(model.end(), models[1 - which].begin(), models[1 - which].end());
      models[1 - which].clear();
    }
    if (queue.count() != model.size()) FAIL("count at step " << step);
  }
  for (const std::size_t which : {0, 1}) {
    CHECK(drain(queues[which]) ==
          std::vector<Element*>(models[which].begin(), models[which].end()));
  }
}

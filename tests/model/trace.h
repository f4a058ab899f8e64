// The operations of one schedule, kept to be printed when it fails.
//
// Promises: the text of a schedule is the same in every process: addresses without a name are
// numbered in the order in which they appear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/model/atomic.h"

namespace weft::model {

class Trace {
 public:
  void clear();
  void name_object(const void* address, std::size_t size_bytes, const char* name);
  void add(const char* thread, Operation operation, const void* address, Word before, Word after);

  // The last operations, one a line: step, thread, operation, address, values.
  std::string text() const;

  // `address` as the trace calls it.
  std::string name_of(const void* address);

 private:
  struct Object {
    std::uintptr_t begin;
    std::size_t size_bytes;
    const char* name;
  };

  std::string text_of(Word word);

  std::vector<Object> objects_;
  std::unordered_map<std::uintptr_t, std::size_t> numbers_;
  std::vector<std::string> lines_;
};

}  // namespace weft::model

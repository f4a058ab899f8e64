#include "tests/model/trace.h"

#include <algorithm>
#include <cstdio>

namespace weft::model {
namespace {

constexpr std::size_t kLinesShown = 200;

const char* verb(Operation operation) {
  switch (operation) {
    case Operation::kLoad:
      return "load";
    case Operation::kStore:
      return "store";
    case Operation::kExchange:
      return "exchange";
    case Operation::kCompareExchange:
      return "cas";
    case Operation::kCompareExchangeFailed:
      return "cas fails";
    case Operation::kFetchAdd:
      return "fetch_add";
    case Operation::kFetchSub:
      return "fetch_sub";
    case Operation::kFetchOr:
      return "fetch_or";
    case Operation::kFetchAnd:
      return "fetch_and";
    case Operation::kFetchXor:
      return "fetch_xor";
    case Operation::kSpin:
      return "spin";
    case Operation::kSleep:
      return "sleeps on";
    case Operation::kWait:
      return "wait";
    case Operation::kPost:
      return "post";
    case Operation::kChoose:
      return "choose";
  }
  return "?";
}

}  // namespace

void Trace::clear() {
  objects_.clear();
  numbers_.clear();
  lines_.clear();
}

void Trace::name_object(const void* address, std::size_t size_bytes, const char* name) {
  objects_.push_back({reinterpret_cast<std::uintptr_t>(address), size_bytes, name});
}

void Trace::add(const char* thread, Operation operation, const void* address, Word before,
                Word after) {
  std::string values;
  if (operation == Operation::kLoad || operation == Operation::kChoose) {
    values = text_of(before);
  } else if (operation == Operation::kCompareExchangeFailed) {
    values = text_of(before) + ", not to " + text_of(after);
  } else if (operation != Operation::kSpin && operation != Operation::kSleep) {
    values = text_of(before) + " -> " + text_of(after);
  }
  char line[256];
  std::snprintf(line, sizeof line, "%5zu  %-12s %-10s %-16s %s", lines_.size() + 1, thread,
                verb(operation), address == nullptr ? "" : name_of(address).c_str(),
                values.c_str());
  lines_.emplace_back(line);
}

std::string Trace::text() const {
  std::string text;
  const std::size_t first = lines_.size() - std::min(lines_.size(), kLinesShown);
  for (std::size_t i = first; i < lines_.size(); ++i) text += lines_[i] + "\n";
  return text;
}

std::string Trace::name_of(const void* address) {
  const auto word = reinterpret_cast<std::uintptr_t>(address);
  for (const Object& object : objects_) {
    if (word - object.begin >= object.size_bytes) continue;
    const std::size_t offset = word - object.begin;
    return offset == 0 ? object.name : object.name + ("+" + std::to_string(offset));
  }
  return "#" + std::to_string(numbers_.try_emplace(word, numbers_.size() + 1).first->second);
}

std::string Trace::text_of(Word word) {
  if (word.is_pointer) {
    return word.bits == 0 ? "null" : name_of(reinterpret_cast<const void*>(word.bits));
  }
  if (word.bits < 1'000'000) return std::to_string(word.bits);
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(word.bits));
  return text;
}

}  // namespace weft::model

// How deep JSON may be nested. Code that walks a document calls itself once a level, and would run out of
// stack on a crafted one. Every document that is read stays below one limit.
#pragma once

#include <cstddef>
#include <string>

#include "focus/core/error.h"

namespace focus {

inline constexpr std::size_t kDeepestJson = 100;

/// E, naming the place, where `depth` levels are open already and one more begins.
template <class E>
void refuse_deeper(std::size_t depth, const std::string& where) {
  if (depth >= kDeepestJson)
    fail<E>(where, ": nested more than ", kDeepestJson, " levels deep; no JSON that is read here is");
}

/// A callback of nlohmann::json::parse that refuses deeper documents.
template <class E>
struct DepthWatch {
  std::string where;
  template <class Event, class Json>
  bool operator()(int depth, Event event, const Json&) const {
    if (event == Event::object_start || event == Event::array_start)
      refuse_deeper<E>(static_cast<std::size_t>(depth), where);
    return true;
  }
};

}  // namespace focus

// A struct's field list as data: what each setting is, and whether it has an effect as the struct stands.
#pragma once

#include <string>
#include <vector>

#include "focus/config/fields.h"

namespace focus::config {

/// One setting, or the line of a group or list.
struct FieldLine {
  std::string path, type, initial, allowed, doc;
  std::vector<std::string> only_if;  // clauses of its own; those of its group are the group's
  std::string unmet;                 // the first clause that does not hold, its groups' first; empty: all do
  std::string pattern;               // the path, with "N" for every index
  bool is_group = false;
};

/// Every field in order. `by_element`: each element of a list, else one fresh element, with "N" for its
/// index; lists are resized for that. `prefix`: path of the visited struct, "focus.".
std::vector<FieldLine> field_lines(const Visit& visit, bool by_element = false,
                                   const std::string& prefix = "");
/// The settings that are not as `fresh` has them and have no effect.
std::vector<FieldLine> idle_lines(const Visit& visit, const Visit& fresh, const std::string& prefix = "");
/// "focus.tail has no effect unless focus.eviction is 'window'; remove it".
std::string idle_text(const FieldLine& line);

}  // namespace focus::config

// RecordValue to and from JSON.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "focus/train/run/record_value.h"

namespace focus::train {

/// JSON has no NaN or infinity: both become null.
template <class Json>
Json record_to_json(const RecordValue& value) {
  if (const double* real = std::get_if<double>(&value))
    return std::isfinite(*real) ? Json(*real) : Json(nullptr);
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return Json(*whole);
  return Json(std::get<std::string>(value));
}

/// Nothing when the JSON is neither text nor number.
template <class Json>
std::optional<RecordValue> record_from_json(const Json& node) {
  if (node.is_string()) return node.template get<std::string>();
  if (node.is_number_float()) return node.template get<double>();
  if (node.is_number_integer()) return node.template get<int64_t>();
  return std::nullopt;
}

}  // namespace focus::train

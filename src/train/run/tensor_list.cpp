#include "run/tensor_list.h"

#include <set>
#include <sstream>

#include "focus/core/error.h"

namespace focus::train {
namespace {

std::string summary(const at::Tensor& tensor) {
  std::ostringstream out;
  out << tensor.scalar_type() << ' ' << tensor.sizes();
  return out.str();
}

void append_list(std::string& message, const char* title, const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 20;
  if (items.empty()) return;
  message += concat("\n  ", title, " (", items.size(), "):");
  for (std::size_t i = 0; i < items.size() && i < kShown; ++i) message += "\n    " + items[i];
  if (items.size() > kShown) message += concat("\n    ... and ", items.size() - kShown, " more");
}

}  // namespace

void require_same_tensors(const std::map<std::string, at::Tensor>& found, const NamedTensors& expected, const std::string& what) {
  std::vector<std::string> missing, unexpected, different;
  std::set<std::string> names;
  for (const auto& [name, tensor] : expected) {
    names.insert(name);
    const auto match = found.find(name);
    if (match == found.end()) {
      missing.push_back(concat(name, " ", summary(tensor)));
    } else if (match->second.sizes() != tensor.sizes() || match->second.scalar_type() != tensor.scalar_type()) {
      different.push_back(concat(name, ": expected ", summary(tensor), ", got ", summary(match->second)));
    }
  }
  for (const auto& [name, tensor] : found) {
    if (names.count(name) == 0) unexpected.push_back(concat(name, " ", summary(tensor)));
  }
  if (missing.empty() && unexpected.empty() && different.empty()) return;
  std::string message = concat(what, ": the tensors do not fit this model and configuration");
  append_list(message, "missing", missing);
  append_list(message, "unexpected", unexpected);
  append_list(message, "different shape or type", different);
  throw CheckpointError(message);
}

}  // namespace focus::train

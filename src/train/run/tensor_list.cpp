#include "run/tensor_list.h"

#include <set>
#include <sstream>

#include "focus/core/error.h"
#include "focus/core/text.h"

namespace focus::train {
namespace {

std::string summary(const at::Tensor& tensor) {
  std::ostringstream out;
  out << tensor.scalar_type() << ' ' << tensor.sizes();
  return out.str();
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

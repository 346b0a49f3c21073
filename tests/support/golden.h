// Reads the reference recordings of tests/golden.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "focus/model/striped_hyena.h"
#include "focus/weights/tensor_file.h"

namespace focus::testing {

class Golden {
 public:
  /// e.g. "tiny7b.logits.fp32"
  explicit Golden(const std::string& name);
  bool has(const std::string& tensor) const { return file_->find(tensor) != nullptr; }
  /// A copy; integers come as int64.
  at::Tensor operator[](const std::string& tensor) const;

 private:
  std::shared_ptr<weights::TensorFile> file_;
};

/// The small random model the recordings were made with, e.g. "tiny7b".
std::shared_ptr<model::StripedHyena> golden_model(const std::string& name, at::ScalarType dtype);
std::string golden_path(const std::string& relative);

}  // namespace focus::testing

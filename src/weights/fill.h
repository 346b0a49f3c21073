// From a file's entries to a backbone's parameters, by an architecture's rules.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "focus/model/backbone.h"
#include "focus/weights/load_model.h"

namespace focus::weights {

struct Filling {
  /// Parameters and buffers that the model computes itself and no file need hold; null: none.
  std::function<bool(const std::string& parameter)> computed;
  /// Entries that may be there and compute nothing.
  std::function<bool(const std::string& entry)> computes_nothing;
  /// The numbers the reference computes with, where it rounds what the file holds; null: as they are.
  std::function<at::Tensor(const std::string& parameter, const at::Tensor& source)> rounded;
};

/// Parameters and buffers by name.
std::map<std::string, at::Tensor> named_tensors(const model::Backbone& model);

/// Strict: WeightsError lists every missing, unexpected and misshapen tensor, before anything was changed.
LoadReport fill(model::Backbone& model, const std::shared_ptr<formats::TensorFile>& file,
                const LoadOptions& options, const Filling& rules);

/// LoadedModel::precision. `config`: of a StripedHyena, else null.
std::string precision_text(const model::ModelConfig* config, const LoadOptions& options);

}  // namespace focus::weights

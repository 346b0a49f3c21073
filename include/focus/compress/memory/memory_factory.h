// From a memory's name to the object: what training, evaluation and scoring all ask. A new memory is one
// class and one register_memory().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/compressed_model.h"
#include "focus/compress/plan/config.h"
#include "focus/compress/rivals/rivals.h"

namespace focus::compress {

/// What one layer's memory is made for.
struct LayerContext {
  const model::Backbone& backbone;
  int64_t block = 0;
  const MemoryConfig& config;
  const Budget& budget;               // bytes that Focus would take under `config`
  std::shared_ptr<KmersCache> kmers;  // shared by the model's layers
};
using MakeLayerMemory = std::function<std::shared_ptr<const LayerMemory>(const LayerContext&)>;

/// Makes a memory known by a name to configurations, command lines and reports. ConfigError: the name is
/// taken. Returns true, so that a registration can initialise a constant at namespace scope.
bool register_memory(const std::string& name, MakeLayerMemory make);
/// In the order of registration; those of this library first.
std::vector<std::string> memory_names();
/// Whether a memory is a way of storing itself, to which `storage.dtype` cannot apply.
bool stores_itself(const std::string& name);

/// Whether it fetches from far memory, as `far` says.
bool stands_on_far(const std::string& name);

/// The memory of that name, or a retention policy, on every attention layer. ConfigError lists the names.
std::shared_ptr<CompressedModel> make_memory(const std::string& name,
                                             const std::shared_ptr<model::Backbone>& backbone,
                                             const MemoryConfig& config);
std::shared_ptr<CompressedModel> make_memory(const RetentionPolicy& policy,
                                             const std::shared_ptr<model::Backbone>& backbone,
                                             const MemoryConfig& config);
/// The same settings with the closed form alone as the unit, beside the bases: the memory 'fitted'.
MemoryConfig closed_form(MemoryConfig config);

}  // namespace focus::compress

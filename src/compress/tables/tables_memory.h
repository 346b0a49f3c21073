// Base memory: of a closed window only its letters stay, from which base tables predict keys and values.
#pragma once

#include <memory>

#include "focus/compress/memory/memory.h"
#include "focus/compress/plan/layer_rules.h"
#include "focus/compress/tables/base_tables.h"
#include "open_bases.h"

namespace focus::compress {

class TablesState final : public MemoryState {
 public:
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override {
    return std::make_unique<TablesState>(*this);
  }
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  MemoryUse use() const override { return {codes.size() - open.size(), codes.num_bytes(), open.num_bytes()}; }
  void detach() override { open.detach(); }

  PackedBases codes;  // of all bases so far
  OpenBases open;
};

class TablesMemory final : public LayerMemory {
 public:
  TablesMemory(LayerRules rules, std::shared_ptr<const BaseTables> tables, const model::Backbone& backbone);
  std::string describe() const override;
  std::unique_ptr<MemoryState> make_state() const override { return std::make_unique<TablesState>(); }
  at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override;
  at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const override;
  MemoryUse planned(int64_t num_bases) const override;
  bool reads_codes() const override { return true; }

 private:
  class Walk;
  LayerRules rules_;
  std::shared_ptr<const BaseTables> tables_;
  int64_t open_bytes_;  // of a raw base
};

}  // namespace focus::compress

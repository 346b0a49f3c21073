#include "focus/model/parameter_list.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "focus/weights/load_model.h"
#include "support/golden.h"

namespace focus::model {
namespace {

std::vector<ModelConfig> shapes() {
  const std::string source = FOCUS_SOURCE_DIR;
  std::vector<ModelConfig> out = {read_model_config(testing::golden_path("configs/tiny7b.yml")),
                                  read_model_config(testing::golden_path("configs/tiny7b-1m.yml")),
                                  read_model_config(source + "/configs/models/focus-small.yml")};
  // Every switch that adds or removes a tensor.
  out.push_back(out.front());
  out.back().qkv_bias = true;
  out.back().attention_out_bias = out.back().hyena_out_bias = out.back().final_norm = false;
  out.back().hcs_groups = 2;
  out.back().hcs_taps = 5;
  out.back().hcm_taps = 9;
  out.back().state_size = 3;
  out.back().input_taps = 4;
  return out;
}

TEST(ParameterListTest, EqualsWhatTheModelRegisters) {
  for (const ModelConfig& config : shapes()) {
    const StripedHyena model(config);
    std::map<std::string, std::vector<int64_t>> parameters, buffers;
    for (const auto& item : model.named_parameters()) parameters[item.key()] = item.value().sizes().vec();
    for (const auto& item : model.named_buffers()) buffers[item.key()] = item.value().sizes().vec();
    std::map<std::string, std::vector<int64_t>> listed, listed_buffers;
    int64_t count = 0;
    for (const ParameterSpec& spec : parameter_list(config)) {
      EXPECT_TRUE((spec.buffer ? listed_buffers : listed).emplace(spec.name, spec.shape).second) << spec.name;
      if (!spec.buffer) count += spec.num_elements();
    }
    EXPECT_EQ(listed, parameters) << config.name;
    EXPECT_EQ(listed_buffers, buffers) << config.name;
    EXPECT_EQ(count, model.num_parameters()) << config.name;
  }
}

TEST(ParameterListTest, HasThePrecisionOfASavedCheckpoint) {
  const ModelConfig config = shapes().front();
  const auto path =
      std::filesystem::temp_directory_path() / ("focus-parameter-list-" + std::to_string(::getpid()) + ".pt");
  weights::save_weights(StripedHyena(config), path);
  const auto file = formats::TensorFile::open(path);
  std::filesystem::remove(path);
  const auto list = parameter_list(config);
  EXPECT_EQ(file->tensors().size(), list.size());
  for (const ParameterSpec& spec : list) {
    const auto* view = file->find(spec.name);
    ASSERT_NE(view, nullptr) << spec.name;
    EXPECT_EQ(view->dtype, spec.fp32 ? formats::DType::float32 : formats::DType::bfloat16) << spec.name;
  }
}

}  // namespace
}  // namespace focus::model

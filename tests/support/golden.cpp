#include "support/golden.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "focus/core/error.h"
#include "focus/weights/load_model.h"
#include "focus/weights/tensor_view.h"
#include "support/tensors.h"

namespace focus::testing {

std::string golden_path(const std::string& relative) {
  // Elsewhere than where it was built, a program is told where the recordings are.
  const char* folder = std::getenv("FOCUS_TEST_DATA");
  return std::string(folder != nullptr ? folder : FOCUS_TEST_DATA) + "/" + relative;
}

Golden::Golden(const std::string& name)
    : file_(formats::TensorFile::open(golden_path(name + ".safetensors"))) {}

at::Tensor Golden::operator[](const std::string& tensor) const {
  const auto* view = file_->find(tensor);
  if (view == nullptr) fail<DataError>("golden file has no tensor '", tensor, "'");
  const at::Tensor t = weights::as_tensor(*view);
  return at::isFloatingType(t.scalar_type()) ? t.clone() : t.to(at::kLong);
}

std::vector<std::string> Golden::names() const {
  std::vector<std::string> out;
  for (const auto& view : file_->tensors()) out.push_back(view.name);
  return out;
}

std::shared_ptr<model::StripedHyena> golden_model(const std::string& name, at::ScalarType dtype) {
  const auto loaded = weights::load_model(golden_path("configs/" + name + ".yml"),
                                          golden_path("checkpoints/" + name + ".pt"), dtype, "cpu");
  return std::dynamic_pointer_cast<model::StripedHyena>(loaded.model);
}

double GoldenCheck::reference_error(const std::string& what) const {
  static const nlohmann::json errors =
      nlohmann::json::parse(std::ifstream(golden_path("reference_error.json")));
  return errors.at(model_).at(what).get<double>();
}

void GoldenCheck::operator()(const std::string& what, const at::Tensor& got, const at::Tensor& recorded,
                             const std::string& yardstick) const {
  SCOPED_TRACE(model_ + " " + what);
  const double largest = max_difference(got, recorded), rms = relative_rms(got, recorded);
  if (dtype_ == at::kFloat) {
    constexpr double kRms = 2e-5, kLargest = 2e-4;
    EXPECT_LE(largest, kLargest * recorded.abs().max().item<double>());
    EXPECT_LE(rms, kRms);
    add_row(what, largest, rms, kRms, -1);
  } else {
    const double reference = reference_error(yardstick.empty() ? what : yardstick);
    EXPECT_LE(rms, 1.5 * reference);
    add_row(what, largest, rms, 1.5 * reference, reference);
  }
}

void GoldenCheck::add_row(const std::string& what, double largest, double rms, double bound,
                          double reference) const {
  const char* path = std::getenv("FOCUS_GOLDEN_TABLE");
  if (path == nullptr) return;
  std::ofstream out(path, std::ios::app);
  out << model_ << '\t' << (dtype_ == at::kFloat ? "fp32" : "bf16") << '\t' << what << '\t' << largest << '\t'
      << rms << '\t' << bound << '\t' << reference << '\n';
  EXPECT_TRUE(out.flush().good()) << "FOCUS_GOLDEN_TABLE: cannot write " << path;
}

::testing::internal::ParamGenerator<GoldenTest::ParamType> golden_models(
    const std::vector<std::string>& names) {
  return ::testing::Combine(::testing::ValuesIn(names), ::testing::Values(at::kFloat, at::kBFloat16));
}

std::string golden_test_name(const ::testing::TestParamInfo<GoldenTest::ParamType>& info) {
  std::string name = std::get<0>(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name + (std::get<1>(info.param) == at::kFloat ? "_fp32" : "_bf16");
}

}  // namespace focus::testing

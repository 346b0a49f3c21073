// Reads the reference recordings of tests/golden and judges what is computed here against them.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "focus/formats/tensor_file.h"
#include "focus/model/striped_hyena.h"

namespace focus::testing {

class Golden {
 public:
  /// e.g. "tiny7b.logits.fp32"
  explicit Golden(const std::string& name);
  bool has(const std::string& tensor) const { return file_->find(tensor) != nullptr; }
  /// A copy; integers come as int64.
  at::Tensor operator[](const std::string& tensor) const;
  /// In file order.
  std::vector<std::string> names() const;

 private:
  std::shared_ptr<formats::TensorFile> file_;
};

/// The small random model the recordings were made with, e.g. "tiny7b".
std::shared_ptr<model::StripedHyena> golden_model(const std::string& name, at::ScalarType dtype);
std::string golden_path(const std::string& relative);

/// Judges one model in one precision against its fp32 recordings (tests/golden/README.md): fp32 within 2e-5
/// relative rms and 2e-4 of the recording's largest value everywhere; bf16 no farther than 1.5 times the
/// reference's own bf16 run.
class GoldenCheck {
 public:
  GoldenCheck(std::string model, at::ScalarType dtype) : model_(std::move(model)), dtype_(dtype) {}
  /// `what` names the recording, "hidden/3": file and tensor. `yardstick` names the reference's error to
  /// judge bf16 by, if not its own.
  void operator()(const std::string& what, const at::Tensor& got, const at::Tensor& recorded,
                  const std::string& yardstick = "") const;
  /// The relative rms between the reference's bf16 run and its fp32 run, from reference_error.json.
  double reference_error(const std::string& what) const;
  /// Adds a row to the table that FOCUS_GOLDEN_TABLE names, if set: what was measured, its bound, the
  /// reference's own error (< 0: none).
  void add_row(const std::string& what, double largest, double rms, double bound, double reference) const;

 private:
  std::string model_;
  at::ScalarType dtype_;
};

/// Base of tests that run on every recorded model in fp32 and bf16.
class GoldenTest : public ::testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  std::string name() const { return std::get<0>(GetParam()); }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  bool exact() const { return dtype() == at::kFloat; }
  Golden recorded(const std::string& what) const { return Golden(name() + "." + what + ".fp32"); }

  at::NoGradGuard guard_;
  std::shared_ptr<model::StripedHyena> model_ = golden_model(name(), dtype());
  GoldenCheck check_{name(), dtype()};
};

const std::vector<std::string> kGoldenModels = {"tiny7b", "tiny7b-1m", "tiny1b", "tiny40b"};
/// Parameters for INSTANTIATE_TEST_SUITE_P: each model in fp32 and in bf16.
::testing::internal::ParamGenerator<GoldenTest::ParamType> golden_models(
    const std::vector<std::string>& names = kGoldenModels);
std::string golden_test_name(const ::testing::TestParamInfo<GoldenTest::ParamType>& info);

}  // namespace focus::testing

// Stateless logits against the reference's recordings; see GoldenCheck for the tolerances.
#include "support/golden.h"

namespace focus::testing {
namespace {

using at::Tensor;

const std::vector<std::string> kCases = {"len1",   "len2",    "len3",    "len7",       "len64",
                                         "len300", "len1100", "len2500", "batch2_300", "bytes256"};

class GoldenLogitsTest : public GoldenTest {};

TEST_P(GoldenLogitsTest, EveryRecordedInput) {
  const Golden golden = recorded("logits");
  const Tensor acgt = at::tensor({int64_t{'A'}, int64_t{'C'}, int64_t{'G'}, int64_t{'T'}});
  for (const auto& name : kCases) {
    const Tensor logits = model_->forward(golden["tokens." + name]);
    if (golden.has("logits." + name)) {
      check_("logits/logits." + name, logits, golden["logits." + name]);
      continue;
    }
    check_("logits/logits_at." + name, logits.index_select(1, golden["pos." + name]),
           golden["logits_at." + name]);
    check_("logits/acgt." + name, logits.index_select(-1, acgt), golden["acgt." + name]);
    check_("logits/logsumexp." + name, at::logsumexp(logits.to(at::kFloat), -1), golden["logsumexp." + name]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogitsTest, golden_models(), golden_test_name);

}  // namespace
}  // namespace focus::testing

#include "focus/compress/rivals/rivals.h"

#include <algorithm>

#include "attention_match.h"
#include "fitted_rivals.h"
#include "focus/core/error.h"
#include "key_selection.h"
#include "simple_rivals.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr bool kQueries = true, kBeta = true;

/// Appends what `make` makes of each window, given the number of entries that the budget leaves room for, one
/// per base at most.
auto fill(bool with_beta, std::function<Entries(const ClosedSpan&, int64_t)> make) {
  return [with_beta, make = std::move(make)](const ClosedSpan& span, const Budget& budget,
                                             EntryStore& retained) {
    const int64_t room = std::min(room_for(span, budget, retained, with_beta), span.num_bases());
    if (room > 0) retained.append(make(span, room));
  };
}

std::string in_codes(const char* which, const QuantisedConfig& config) {
  const auto keys = concat("per channel of ", config.key_group, " bases");
  return concat(which, " in ", config.bits, " bits, keys scaled ", config.key_group > 0 ? keys : "per base",
                ", values per base");
}

std::string by_surprise(const char* surprise) {
  return concat("fitted entries of k-mers with equal shares of surprise, ", surprise);
}

}  // namespace

const std::vector<RetentionPolicy>& rivals() {
  static const std::vector<RetentionPolicy> all = {
      {"full", "every key and value is kept", keep_all, !kQueries, Keeps::everything},
      {"state_only", "no key or value is kept; the Hyena states alone cross a window's end", keep_none,
       !kQueries, Keeps::nothing},
      {"sliding", "raw keys and values of the newest bases", sliding(0)},
      {"sinks", concat("raw keys and values of the first ", kSinks, " bases and of the newest"),
       sliding(kSinks)},
      {"strided", "raw keys and values of evenly spaced bases of each window", fill(!kBeta, strided)},
      {"random", concat("raw keys and values of random bases of each window, seed ", kRandomSeed),
       fill(!kBeta, random_bases)},
      {"snapkv",
       concat("raw keys and values that get most attention from the window's last ", kObserved,
              " queries, the largest of ", kNeighbourhood, " neighbours, per head"),
       fill(!kBeta, snapkv), kQueries},
      {"expected_attention",
       "raw keys and values with the highest attention expected from Gaussian future queries, times the "
       "value's length, per head",
       fill(!kBeta, expected_attention), kQueries},
      {"heavy",
       "raw keys and values that get most attention from the window's own queries, turned one window ahead, "
       "per head",
       fill(!kBeta, heavy), kQueries},
      {"kv_quant_int8", in_codes("the newest bases", {.bits = 8}), keep_newest_codes, !kQueries,
       Keeps::budget, 8},
      {"kv_quant_int4", in_codes("the newest bases", {.bits = 4}), keep_newest_codes, !kQueries,
       Keeps::budget, 4},
      {"mean_pool", "mean key and value of each k-mer, beta = log k", mean_pool(kBeta)},
      {"mean_pool_nobeta", "mean key and value of each k-mer, no beta", mean_pool(!kBeta)},
      {"window_mass",
       "one entry per window: zero key, the window's mean log-mass as beta, its mass-weighted mean value "
       "(below the budget)",
       fill(kBeta, window_mass), kQueries},
      {"heavy_fitted",
       concat("the bases with most attention exactly, and one fitted entry for the rest of every ",
              kKmersPerEntry, " k-mers, per head"),
       fill(kBeta, heavy_fitted), kQueries},
      {"attention_match",
       "attention matching: keys by matching pursuit, beta by non-negative least squares, values by ridge "
       "least squares, per head",
       fill(kBeta, attention_match), kQueries},
      {"adaptive", by_surprise("the layer's attention mass"), fill(kBeta, adaptive), kQueries},
      {"multires",
       concat("fitted entries, ", kFiner,
              " times finer than k in the newest window, merged with their neighbours as they grow older"),
       multires, kQueries},
  };
  return all;
}

const RetentionPolicy& rival(const std::string& name) {
  const auto named = [&](const RetentionPolicy& policy) { return policy.name == name; };
  const auto found = std::find_if(rivals().begin(), rivals().end(), named);
  FOCUS_CHECK(found != rivals().end(), "no rival is called '", name, "'");
  return *found;
}

RetentionPolicy quantised(const QuantisedConfig& config) {
  return {concat("quantised_int", config.bits),
          in_codes("every key and value", config),
          keep_all_codes,
          !kQueries,
          Keeps::everything,
          config.bits,
          config.key_group};
}

RetentionPolicy adaptive_by(const Tensor& surprise_BL) {
  if (!surprise_BL.defined() || surprise_BL.dim() != 2 || surprise_BL.lt(0).any().item<bool>())
    fail<ShapeError>("adaptive k-mers: surprise must be one non-negative number for each base, [B, L]");
  const auto make = [surprise_BL](const ClosedSpan& span, int64_t room) {
    const int64_t end = span.first_base + span.num_bases();
    FOCUS_CHECK(surprise_BL.size(0) == span.k.size(0) && surprise_BL.size(1) >= end, "surprise of ",
                surprise_BL.sizes(), " for bases up to ", end);
    const Tensor surprise = surprise_BL.narrow(1, span.first_base, span.num_bases());
    return fit_equal_shares(span, surprise, room);
  };
  return {"adaptive_entropy", by_surprise("the entropy of each base under state_only memory (a second pass)"),
          fill(kBeta, make), kQueries};
}

}  // namespace focus::compress

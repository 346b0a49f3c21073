// Far memory by keys and queries, and by chance. Legend: B batch, H query heads, G key/value heads, n queries
// or bases, S bases of the past, K k-mers, E head dimension, R rank of a sketch, C = n H / G queries that
// share a key head.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "focus/cache/grown_rows.h"
#include "focus/compress/far/scorer.h"
#include "focus/core/error.h"
#include "focus/core/random.h"
#include "focus/ops/host_copy.h"

namespace focus::compress {
namespace {

using at::Tensor;
using cache::GrownRows;

const std::string kPrefix = "far.scorer.";  // of names in saved states

// The k-mers with the largest weights, the newer of two with as much.
FarChoice largest(const double* weights, int64_t count, int64_t budget) {
  std::vector<std::pair<double, int64_t>> ranked;
  for (int64_t j = 0; j < count; ++j) ranked.emplace_back(weights[j], j);
  const auto taken = std::min(count, budget);
  std::partial_sort(ranked.begin(), ranked.begin() + taken, ranked.end(), std::greater<>());
  FarChoice out;
  for (int64_t j = 0; j < taken; ++j) out.kmers.push_back(ranked[static_cast<std::size_t>(j)].second);
  std::sort(out.kmers.begin(), out.kmers.end());
  return out;
}

class RandomScorer final : public FarScorer {
 public:
  explicit RandomScorer(const WindowPlan& plan) : plan_(plan) {}
  void append(const Tensor& codes_BN) override { batch_ = codes_BN.size(0); }
  std::vector<FarChoice> choose(const FarTile& tile, int64_t budget, const Tensor&) override {
    const int64_t count = plan_.kmers_completed(tile.past_end);
    std::vector<FarChoice> out(static_cast<std::size_t>(batch_));
    for (std::size_t b = 0; b < out.size(); ++b) {
      Random random(b, static_cast<uint64_t>(tile.begin));
      std::set<int64_t> drawn;
      while (static_cast<int64_t>(drawn.size()) < std::min(budget, count))
        drawn.insert(random.uniform_integer(count));
      out[b].kmers.assign(drawn.begin(), drawn.end());
    }
    return out;
  }
  std::unique_ptr<FarScorer> clone() const override { return std::make_unique<RandomScorer>(*this); }
  std::unique_ptr<FarScorer> snapshot() const override { return clone(); }
  void save(cache::TensorMap&) const override {}
  void load(const cache::TensorMap&, const at::Device&) override {}
  int64_t num_bytes() const override { return 0; }

 private:
  WindowPlan plan_;
  int64_t batch_ = 0;
};

// Where the attention of queries goes: [B, G, C, K] log of each k-mer's summed weights.
class KeyScorer : public FarScorer {
 public:
  std::vector<FarChoice> choose(const FarTile& tile, int64_t budget, const Tensor& q_BHnE) final {
    const at::NoGradGuard no_grad;
    const int64_t count = plan_.kmers_completed(tile.past_end), batch = q_BHnE.size(0);
    if (count == 0) return std::vector<FarChoice>(static_cast<std::size_t>(batch));
    const int64_t groups = num_heads(), width = q_BHnE.size(3);
    FOCUS_CHECK(count <= closed(), count, " k-mers may be fetched, ", closed(), " have closed");
    const Tensor q_BGCE =
        (q_BHnE.to(at::kFloat) / std::sqrt(static_cast<double>(width))).reshape({batch, groups, -1, width});
    const Tensor weights_BK = ops::to_host(log_mass(q_BGCE, count).softmax(3).sum({1, 2}).to(at::kDouble));
    std::vector<FarChoice> out;
    for (int64_t b = 0; b < batch; ++b)
      out.push_back(largest(weights_BK.const_data_ptr<double>() + b * count, count, budget));
    return out;
  }

  void save(cache::TensorMap& out) const final {
    for_each(*this, [&](const char* name, const GrownRows& rows) {
      if (!rows.empty()) out[kPrefix + name] = cache::saved_tensor(rows.rows());
    });
    for (const auto& [name, tensor] : {std::pair("queries", queries_), {"mean", mean_}, {"basis", basis_}})
      if (tensor.defined()) out[kPrefix + name] = cache::saved_tensor(tensor);
  }
  void load(const cache::TensorMap& saved, const at::Device& device) override {
    for_each(*this, [&](const char* name, GrownRows& rows) {
      if (saved.contains(kPrefix + name)) rows.assign(cache::loaded_tensor(saved, kPrefix + name, device));
    });
    for (const auto& [name, tensor] : {std::pair("queries", &queries_), {"mean", &mean_}, {"basis", &basis_}})
      if (saved.contains(kPrefix + name)) *tensor = cache::loaded_tensor(saved, kPrefix + name, device);
    if (basis_.defined() && !mean_.defined())
      fail<CheckpointError>(
          "a saved stream holds the sketches of another version; stream the sequence again");
  }
  int64_t num_bytes() const final {
    int64_t bytes =
        cache::storage_bytes(queries_) + cache::storage_bytes(mean_) + cache::storage_bytes(basis_);
    for_each(*this, [&](const char*, const GrownRows& rows) { bytes += rows.num_bytes(); });
    return bytes;
  }

 protected:
  explicit KeyScorer(const WindowPlan& plan) : plan_(plan) {}
  KeyScorer(const KeyScorer&) = default;
  virtual Tensor log_mass(const Tensor& q_BGCE, int64_t count) const = 0;

  int64_t num_heads() const { return rows_.empty() ? 0 : rows_.rows().size(1); }
  template <class Self, class F>
  static void for_each(Self& self, const F& f) {
    f("rows", self.rows_), f("scale", self.scale_);
  }
  void clone_rows() {
    for_each(*this, [](const char*, GrownRows& rows) { rows = rows.clone(); });
  }

  WindowPlan plan_;
  GrownRows rows_, scale_;  // [B, G, S or K, ..] keys or their codes; their scales, or the entries' beta
  // Of a sketch. [B, G, E, E] second moment of the first queries, until there is a basis; [B, G, 1, E] the
  // mean that keys leave out; [2, B, G, E, R] what makes coordinates of keys and of queries.
  Tensor queries_, mean_, basis_;
};

class FittedScorer final : public KeyScorer {
 public:
  explicit FittedScorer(const WindowPlan& plan) : KeyScorer(plan) {}
  void close(const Tensor&, const Entries& summaries) override {
    const at::NoGradGuard no_grad;
    rows_.append(summaries.k.to(at::kFloat), false);
    const Tensor beta = summaries.beta.defined() ? summaries.beta : at::zeros_like(summaries.k.select(3, 0));
    scale_.append(beta.to(at::kFloat).unsqueeze(3), false);
  }
  int64_t closed() const override { return rows_.size(); }
  std::unique_ptr<FarScorer> clone() const override {
    auto out = std::make_unique<FittedScorer>(*this);
    out->clone_rows();
    return out;
  }
  std::unique_ptr<FarScorer> snapshot() const override { return std::make_unique<FittedScorer>(*this); }

 private:
  Tensor log_mass(const Tensor& q_BGCE, int64_t count) const override {
    return at::matmul(q_BGCE, rows_.rows().narrow(2, 0, count).transpose(2, 3)) +
           scale_.rows().narrow(2, 0, count).transpose(2, 3);
  }
};

// Codes of `bits` bits: an odd number of half steps from zero, so that one bit is a sign.
class BaseScorer final : public KeyScorer {
 public:
  /// `bits` 0: the keys themselves. `rank` 0: in their own channels.
  BaseScorer(const WindowPlan& plan, int64_t bits, int64_t rank)
      : KeyScorer(plan), bits_(bits), rank_(rank) {}

  void close(const Tensor& k_BGnE, const Entries&) override {
    const at::NoGradGuard no_grad;
    count_to(rows_.size() + k_BGnE.size(2));
    if (bits_ == 0) return rows_.append(k_BGnE, false);
    Tensor x = k_BGnE.to(at::kFloat);
    if (rank_ > 0) {
      if (!basis_.defined()) calibrate(k_BGnE);
      x = at::matmul(x - mean_, basis_.select(0, 0));
    }
    // The step with the least error for normal numbers at 1 and 2 bits; for more, so that the largest fits.
    const Tensor step = (bits_ == 1   ? x.abs().mean(3, true) * 2
                         : bits_ == 2 ? x.square().mean(3, true).sqrt()
                                      : x.abs().amax(3, true) / middle())
                            .clamp_min(6.2e-5)
                            .to(at::kHalf);
    Tensor codes = (x / step + middle()).round().clamp(0, 2 * middle()).to(at::kByte);
    const int64_t per_byte = 8 / bits_, last = codes.size(3) % per_byte;
    if (last > 0) codes = at::constant_pad_nd(codes, {0, per_byte - last});
    const Tensor apart = codes.unflatten(3, {-1, per_byte});
    Tensor packed = apart.select(4, 0).clone();
    for (int64_t i = 1; i < per_byte; ++i) packed |= apart.select(4, i).bitwise_left_shift(i * bits_);
    rows_.append(packed, false);
    scale_.append(step, false);
  }
  void see(const Tensor& q_BHnE, int64_t kv_heads) override {
    if (rank_ == 0 || basis_.defined()) return;
    const at::NoGradGuard no_grad;
    const Tensor q = q_BHnE.to(at::kDouble).reshape({q_BHnE.size(0), kv_heads, -1, q_BHnE.size(3)}),
                 moment = at::matmul(q.transpose(2, 3), q);
    queries_ = queries_.defined() ? queries_ + moment : moment;
  }
  int64_t closed() const override { return static_cast<int64_t>(ends_.size()); }
  void load(const cache::TensorMap& saved, const at::Device& device) override {
    KeyScorer::load(saved, device);
    count_to(rows_.size());
  }
  std::unique_ptr<FarScorer> clone() const override {
    auto out = std::make_unique<BaseScorer>(*this);
    out->clone_rows();
    return out;
  }
  std::unique_ptr<FarScorer> snapshot() const override { return std::make_unique<BaseScorer>(*this); }

 private:
  double middle() const { return static_cast<double>((int64_t{1} << bits_) - 1) / 2; }
  // The directions that hold most of the scores' variance: with C of the queries and S of the keys, the
  // largest eigenvectors of C^1/2 S C^1/2. Keys take them times C^1/2, queries times its inverse, so that
  // every coordinate's rounding costs a score as much.
  void calibrate(const Tensor& k_BGnE) {
    const int64_t dim = k_BGnE.size(3);
    if (rank_ > dim)
      fail<ConfigError>("far.rank ", rank_, ": a sketch of keys with ", dim, " channels; set it to fewer");
    FOCUS_CHECK(queries_.defined(), "keys have closed before a query was seen");
    // Directions that few of the queries asked for may be asked for later.
    constexpr double kUnseen = 0.1;
    const Tensor x = k_BGnE.to(at::kDouble), mean = x.mean(2, true), rest = x - mean;
    const Tensor level = queries_.diagonal(0, 2, 3).mean(2, true).unsqueeze(3).clamp_min(1e-30);
    const auto [values, vectors] =
        at::linalg_eigh(queries_ / level + kUnseen * at::eye(dim, queries_.options()));
    const auto root = [&, &values = values, &vectors = vectors](double power) {
      return at::matmul(vectors * values.pow(power).unsqueeze(2), vectors.transpose(2, 3));
    };
    const Tensor spread = at::matmul(rest, root(0.5));
    Tensor scatter = at::matmul(spread.transpose(2, 3), spread);
    // Directions that no key of the window has are told apart by their number, not by rounding.
    const Tensor size = scatter.diagonal(0, 2, 3).mean(2, true).clamp_min(1e-30);
    constexpr double kAbsent = 1e-4;
    scatter.diagonal(0, 2, 3).add_(size * at::linspace(kAbsent / 2, kAbsent, dim, scatter.options()));
    // Eigenvectors come in ascending order.
    const Tensor directions = std::get<1>(at::linalg_eigh(scatter)).narrow(3, dim - rank_, rank_);
    basis_ =
        at::stack({at::matmul(root(0.5), directions), at::matmul(root(-0.5), directions)}).to(at::kFloat);
    mean_ = mean.to(at::kFloat);
    queries_ = Tensor();
  }
  // Takes note of the k-mers whose bases take the rows up to `rows`.
  void count_to(int64_t rows) {
    while (ends_.empty() ? rows > 0 : ends_.back() < rows) {
      const int64_t kmer = closed(), window = plan_.window_of_kmer(kmer);
      ends_.push_back(first_row(kmer) + plan_.kmer(window, kmer - plan_.kmers_before(window)).size());
    }
    FOCUS_CHECK(first_row(closed()) == rows, rows, " rows end within a k-mer");
  }
  int64_t first_row(int64_t kmer) const { return kmer == 0 ? 0 : ends_[static_cast<std::size_t>(kmer - 1)]; }

  // [B, G, n, E or R] of rows [begin, end), `width` channels.
  Tensor keys(int64_t begin, int64_t end, int64_t width) const {
    const Tensor rows = rows_.rows().narrow(2, begin, end - begin);
    if (bits_ == 0) return rows.to(at::kFloat);
    std::vector<Tensor> apart;
    for (int64_t shift = 0; shift < 8; shift += bits_)
      apart.push_back(rows.bitwise_right_shift(shift).bitwise_and((1 << bits_) - 1));
    const Tensor codes = at::stack(apart, 4).flatten(3).narrow(3, 0, width).to(at::kFloat);
    return (codes - middle()) * scale_.rows().narrow(2, begin, end - begin);
  }

  Tensor log_mass(const Tensor& q_BGCE, int64_t count) const override {
    constexpr int64_t kAtOnce = 4096;  // rows, about
    const Tensor q = rank_ > 0 ? at::matmul(q_BGCE, basis_.select(0, 1)) : q_BGCE;
    std::vector<Tensor> out;
    for (int64_t first = 0; first < count;) {
      const int64_t begin = first_row(first);
      int64_t last = first;
      std::vector<int64_t> of_row;
      for (; last < count && first_row(last) < begin + kAtOnce; ++last)
        of_row.resize(static_cast<std::size_t>(first_row(last + 1) - begin), last - first);
      const Tensor scores = at::matmul(q, keys(begin, first_row(last), q.size(3)).transpose(2, 3));
      const Tensor top = scores.amax(3, true);
      auto sizes = scores.sizes().vec();
      sizes[3] = last - first;
      const Tensor mass = at::zeros(sizes, scores.options())
                              .index_add_(3, ops::from_host(of_row, scores.device()), (scores - top).exp());
      out.push_back(mass.log() + top);
      first = last;
    }
    return at::cat(out, 3);
  }
  int64_t bits_, rank_;
  std::vector<int64_t> ends_;  // by k-mer: the row behind its last
};

}  // namespace

std::unique_ptr<FarScorer> make_far_scorer(FarScore score, const WindowPlan& plan,
                                           const SeedVoteConfig& seeds, int64_t rank) {
  switch (score) {
    case FarScore::seeds:
      return make_seed_vote(seeds, plan);
    case FarScore::random:
      return std::make_unique<RandomScorer>(plan);
    case FarScore::fitted:
      return std::make_unique<FittedScorer>(plan);
    case FarScore::oracle:
      return std::make_unique<BaseScorer>(plan, 0, 0);
    case FarScore::bits1:
      return std::make_unique<BaseScorer>(plan, 1, 0);
    case FarScore::bits2:
      return std::make_unique<BaseScorer>(plan, 2, 0);
    case FarScore::sketch:
      break;
  }
  return std::make_unique<BaseScorer>(plan, 4, rank);
}

int64_t key_scorer_bytes(FarScore score, int64_t rank, int64_t bases, int64_t kmers, int64_t kv_heads,
                         int64_t head_dim, at::ScalarType model_dtype) {
  const auto of_codes = [&](int64_t bits) { return kv_heads * bases * ((bits + 7) / 8 + 2); };
  switch (score) {
    case FarScore::seeds:
    case FarScore::random:
      return 0;
    case FarScore::oracle:
      return kv_heads * bases * head_dim * static_cast<int64_t>(at::elementSize(model_dtype));
    case FarScore::fitted:
      return kv_heads * kmers * (head_dim + 1) * 4;
    case FarScore::bits1:
      return of_codes(head_dim);
    case FarScore::bits2:
      return of_codes(head_dim * 2);
    case FarScore::sketch:
      break;
  }
  // Until there is a basis, the queries' moment.
  return of_codes(rank * 4) +
         kv_heads * head_dim * (kmers > 0 ? (2 * rank + 1) * 4 : static_cast<int64_t>(8 * head_dim));
}

}  // namespace focus::compress

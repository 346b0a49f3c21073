#include "focus/compress/memory/closed_span.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

#include "focus/ops/host_copy.h"

namespace focus::compress {

using at::Tensor;

struct Kmers::Shared {
  std::vector<Span> spans;
  std::mutex mutex;
  std::map<std::string, Table> tables;  // by device
  std::map<std::tuple<int64_t, at::ScalarType, std::string>, Tensor> means;
  std::map<std::pair<std::vector<int64_t>, std::string>, Tensor> lists;
};

Kmers::Kmers(std::vector<Span> spans) : shared_(std::make_shared<Shared>()) {
  shared_->spans = std::move(spans);
}

const std::vector<Span>& Kmers::spans() const { return shared_->spans; }

const Kmers::Table& Kmers::table(const at::Device& device) const {
  const std::lock_guard lock(shared_->mutex);
  const auto [found, is_new] = shared_->tables.try_emplace(device.str());
  Table& table = found->second;
  if (!is_new) return table;
  const auto count = static_cast<int64_t>(size());
  int64_t longest = 0;
  for (const Span& kmer : spans()) longest = std::max(longest, kmer.size());
  std::vector<int64_t> firsts, lasts;
  std::vector<double> log_sizes;
  Tensor index = at::zeros({count, longest}, at::kLong), exists = at::zeros({count, longest}, at::kBool);
  for (int64_t j = 0; j < count; ++j) {
    const Span& kmer = spans()[static_cast<std::size_t>(j)];
    index[j].narrow(0, 0, kmer.size()).copy_(at::arange(kmer.begin, kmer.end));
    exists[j].narrow(0, 0, kmer.size()).fill_(true);
    firsts.push_back(kmer.begin);
    lasts.push_back(kmer.end - 1);
    log_sizes.push_back(std::log(static_cast<double>(kmer.size())));
  }
  table = {ops::from_host(index, device), ops::from_host(exists, device), ops::from_host(firsts, device),
           ops::from_host(lasts, device), ops::from_host(at::tensor(log_sizes, at::kDouble), device)};
  return table;
}

const Tensor& Kmers::mean_matrix(int64_t num_bases, const at::TensorOptions& options) const {
  const std::lock_guard lock(shared_->mutex);
  const auto [found, is_new] = shared_->means.try_emplace(
      {num_bases, at::typeMetaToScalarType(options.dtype()), options.device().str()});
  if (!is_new) return found->second;
  Tensor mean = at::zeros({static_cast<int64_t>(size()), num_bases}, at::TensorOptions().dtype(at::kFloat));
  for (std::size_t j = 0; j < size(); ++j) {
    const Span& kmer = spans()[j];
    mean[static_cast<int64_t>(j)]
        .narrow(0, kmer.begin, kmer.size())
        .fill_(1.0 / static_cast<double>(kmer.size()));
  }
  return found->second = ops::from_host(mean, options.device()).to(options);
}

const Tensor& Kmers::list(const std::vector<int64_t>& key, const at::Device& device,
                          const std::function<Tensor()>& make) const {
  const std::lock_guard lock(shared_->mutex);
  const auto [found, is_new] = shared_->lists.try_emplace({key, device.str()});
  if (is_new) found->second = ops::from_host(make(), device);
  return found->second;
}

Kmers KmersCache::get(std::vector<Span> spans) {
  std::vector<std::pair<int64_t, int64_t>> key;
  for (const Span& span : spans) key.emplace_back(span.begin, span.end);
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(key);
  return found != known_.end() ? found->second
                               : known_.emplace(std::move(key), Kmers(std::move(spans))).first->second;
}

ClosedSpan LayerBases::span(const Span& bases, int64_t extent, int64_t window, int64_t first_kmer,
                            Kmers kmers) const {
  const auto cut = [&](const Tensor& t, int64_t dim) {
    return t.defined() ? t.narrow(dim, bases.begin - (end - t.size(dim)), bases.size()) : t;
  };
  return {.attention = attention,
          .pre_norm = pre_norm,
          .window = window,
          .first_base = bases.begin,
          .first_kmer = first_kmer,
          .kmers = std::move(kmers),
          .extent = extent,
          .positions = cut(positions, 0),
          .q = cut(q, 2),
          .k = cut(k, 2),
          .v = cut(v, 2),
          .u_BND = cut(u, 1),
          .focus_x = {},
          .focus_positions = {}};
}

Tensor last_positions(const ClosedSpan& span) {
  return span.positions.index_select(0, span.kmers.table(span.positions.device()).lasts);
}

}  // namespace focus::compress

#include "focus/compress/far/recently_used.h"

#include <algorithm>
#include <utility>

#include "focus/core/error.h"

namespace focus::compress {

int64_t RecentlyUsed::bases_of(int64_t kmer) const {
  const int64_t window = plan_.window_of_kmer(kmer);
  return plan_.kmer(window, kmer - plan_.kmers_before(window)).size();
}

void RecentlyUsed::close(int64_t batch, int64_t kmers, int64_t now) {
  if (used_.empty()) used_.resize(static_cast<std::size_t>(batch));
  if (kmers <= closed()) return;
  for (std::vector<int64_t>& used : used_) {
    used.resize(static_cast<std::size_t>(kmers), now);
    std::vector<std::pair<int64_t, int64_t>> oldest;  // by use, then by number
    int64_t bases = 0;
    for (int64_t kmer = 0; kmer < kmers; ++kmer) {
      const int64_t last = used[static_cast<std::size_t>(kmer)];
      if (last < 0) continue;
      oldest.emplace_back(last, kmer);
      bases += bases_of(kmer);
    }
    std::sort(oldest.begin(), oldest.end());
    for (auto next = oldest.begin(); bases > keep_; ++next) {
      used[static_cast<std::size_t>(next->second)] = -1;
      bases -= bases_of(next->second);
    }
  }
  note_held();
}

void RecentlyUsed::note_held() {
  std::vector<bool> held(static_cast<std::size_t>(closed()));
  for (std::size_t kmer = 0; kmer < held.size(); ++kmer)
    held[kmer] = std::ranges::any_of(used_, [&](const auto& used) { return used[kmer] >= 0; });
  held_ = std::make_shared<const std::vector<bool>>(std::move(held));
}

void RecentlyUsed::fetch(std::size_t sequence, FarChoice& choice, int64_t now) {
  std::vector<int64_t>& used = used_.at(sequence);
  std::erase_if(choice.kmers, [&](int64_t kmer) { return used.at(static_cast<std::size_t>(kmer)) < 0; });
  for (const int64_t kmer : choice.kmers) used[static_cast<std::size_t>(kmer)] = now;
}

void RecentlyUsed::save(cache::TensorMap& out) const {
  if (closed() == 0) return;
  std::vector<at::Tensor> rows;
  for (const std::vector<int64_t>& used : used_) rows.push_back(at::tensor(used, at::kLong));
  out.emplace("far.used", at::stack(rows));
}

void RecentlyUsed::load(const cache::TensorMap& saved) {
  used_.clear();
  held_ = nullptr;
  if (!saved.contains("far.used")) return;
  const at::Tensor rows = cache::loaded_tensor(saved, "far.used", at::kCPU).contiguous();
  if (rows.dim() != 2 || rows.scalar_type() != at::kLong)
    fail<CheckpointError>("a saved stream state does not say when its far memory was used");
  for (int64_t b = 0; b < rows.size(0); ++b) {
    const int64_t* row = rows.const_data_ptr<int64_t>() + b * rows.size(1);
    used_.emplace_back(row, row + rows.size(1));
  }
  note_held();
}

}  // namespace focus::compress

#include "focus/compress/plan/plan.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::compress {

// Of a window counted in Focus tokens: far beyond any sequence, and far from where positions would overflow.
constexpr int64_t kMostBases = int64_t{1} << 40;

void WindowConfig::visit(config::Fields& f, std::optional<int64_t>* given, const config::Condition& others) {
  constexpr int64_t kMost = int64_t{1} << 32;
  if (given == nullptr) {
    f.integer("size", size, {1, kMost}, "W: bases (or Focus tokens) per window");
  } else {
    f.integer_or("size", *given, 0, {0, kMost},
                 "W: bases per window; 0 = as the adapter was trained, else 1024");
  }
  f.only(others).choice("unit", unit, {{"bases", WindowUnit::bases}, {"focus", WindowUnit::focus}},
                        "what size counts; with Focus tokens neighbouring windows share one");
  f.only(others).choice("remainder", remainder,
                        {{"own", Remainder::own}, {"merge", Remainder::merge}, {"drop", Remainder::drop}},
                        "bases left over at a window's end: a short k-mer of their own, joined to the last "
                        "k-mer, or no summary");
}

WindowPlan::WindowPlan(const WindowConfig& window, int64_t k) : k_(k), remainder_(window.remainder) {
  if (k < 1 || window.size < 1)
    fail<ConfigError>("window plan: need k >= 1 and window.size >= 1, got k ", k, ", window.size ",
                      window.size);
  if (window.unit == WindowUnit::bases) {
    if (k > window.size)
      fail<ConfigError>("focus.k = ", k, " is larger than window.size = ", window.size,
                        ": a window must hold at least one k-mer; lower focus.k or raise window.size");
    first_ = later_ = window.size;
  } else {
    if (window.size < 2)
      fail<ConfigError>(
          "window.size must be at least 2 with window.unit focus: neighbouring windows share one Focus "
          "token");
    if (window.size > kMostBases / k)
      fail<ConfigError>("a window of window.size = ", window.size, " Focus tokens of focus.k = ", k,
                        " bases has more than ", kMostBases, " bases; lower one of them");
    first_ = window.size * k;
    later_ = (window.size - 1) * k;
  }
}

int64_t WindowPlan::window_of(int64_t base) const { return base < first_ ? 0 : 1 + (base - first_) / later_; }

Span WindowPlan::window(int64_t index) const {
  if (index == 0) return {0, first_};
  const int64_t begin = first_ + (index - 1) * later_;
  return {begin, begin + later_};
}

int64_t WindowPlan::full_kmers(int64_t bases) const {
  const int64_t whole = bases / k_;
  return bases % k_ != 0 && remainder_ == Remainder::own ? whole + 1 : whole;
}

int64_t WindowPlan::num_kmers(int64_t window) const { return full_kmers(window == 0 ? first_ : later_); }

Span WindowPlan::kmer(int64_t window_index, int64_t j) const {
  const Span w = window(window_index);
  const int64_t count = num_kmers(window_index);
  FOCUS_CHECK(j >= 0 && j < count, "k-mer ", j, " of ", count);
  const int64_t begin = w.begin + j * k_;
  const bool takes_rest = j == count - 1 && remainder_ != Remainder::drop;
  return {begin, takes_rest ? w.end : begin + k_};
}

std::vector<Span> WindowPlan::kmers(int64_t window_index) const {
  const int64_t first = window(window_index).begin, count = num_kmers(window_index);
  std::vector<Span> out;
  out.reserve(static_cast<std::size_t>(count));
  for (int64_t j = 0; j < count; ++j) {
    const Span s = kmer(window_index, j);
    out.push_back({s.begin - first, s.end - first});
  }
  return out;
}

int64_t WindowPlan::kmer_of(int64_t base) const {
  const int64_t w = window_of(base), count = num_kmers(w);
  const int64_t j = std::min((base - window(w).begin) / k_, count - 1);
  return base < kmer(w, j).end ? j : -1;
}

int64_t WindowPlan::kmers_before(int64_t window) const {
  return window == 0 ? 0 : full_kmers(first_) + (window - 1) * full_kmers(later_);
}

int64_t WindowPlan::window_of_kmer(int64_t kmer) const {
  const int64_t first = full_kmers(first_);
  return kmer < first ? 0 : 1 + (kmer - first) / full_kmers(later_);
}

int64_t WindowPlan::kmers_completed(int64_t base) const {
  const int64_t w = window_of(base), inside = base - window(w).begin;
  // Within an open window every whole k of bases closes one k-mer, except that a merged remainder delays the
  // last one to the window's end.
  const int64_t whole = std::min(inside / k_, num_kmers(w));
  const bool last_open = whole == num_kmers(w) && whole > 0 && kmer(w, whole - 1).end > base;
  return kmers_before(w) + whole - (last_open ? 1 : 0);
}

int64_t WindowPlan::kept_entries(int64_t num_bases) const {
  const int64_t open = window_of(num_bases);
  return kmers_before(open) + num_bases - window(open).begin;
}

int64_t WindowPlan::next_close(int64_t base, bool by_kmer) const {
  const int64_t w = window_of(base), window_end = window(w).end;
  if (!by_kmer) return window_end;
  const int64_t j = kmer_of(base);
  return j < 0 ? window_end : kmer(w, j).end;
}

bool WindowPlan::ends_kmer(int64_t base) const {
  const int64_t window = window_of(base - 1), j = kmer_of(base - 1);
  return j >= 0 && kmer(window, j).end == base;
}

}  // namespace focus::compress

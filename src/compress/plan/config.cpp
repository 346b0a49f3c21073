#include "focus/compress/plan/config.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::compress {

void PaperUnitConfig::visit(config::Fields& f) {
  f.choice("focus_sees", focus_sees, {{"kmer", FocusSees::kmer}, {"window", FocusSees::window}},
           "bases a Focus query sees: its own k-mer, or everything earlier in the window");
  f.choice("update", update, {{"residual", Update::residual}, {"replace", Update::replace}},
           "the unit's output is added to the Focus state, or replaces it");
  f.choice("entry", entry, {{"backbone", EntrySource::backbone}, {"own", EntrySource::own}},
           "whose key and value projections make the retained entry");
}

void FittedUnitConfig::visit(config::Fields& f) {
  f.number("ridge", ridge, {1e-9, 1e9}, "ridge penalty on the fitted key");
  f.integer("reference_stride", reference_stride, {1, 1 << 20}, "every n-th query of the span is a reference of the fit");
  f.boolean("corrections", corrections, "trained corrections on top of the fit");
  f.boolean("gradient", gradient, "let gradient pass through the fit");
}

namespace {

template <class E>
void choice_or_inherit(config::Fields& f, std::string_view name, std::optional<E>& value,
                       const std::vector<std::pair<std::string, E>>& options, std::string_view doc) {
  std::vector<std::pair<std::string, std::optional<E>>> all = {{"inherit", std::nullopt}};
  for (const auto& [text, option] : options) all.emplace_back(text, option);
  f.choice(name, value, all, doc);
}

const std::vector<std::pair<std::string, Local>> kLocal = {{"window", Local::window}, {"kmer", Local::kmer}};
const std::vector<std::pair<std::string, History>> kHistory = {{"all", History::all}, {"window", History::window}, {"none", History::none}};
const std::vector<std::pair<std::string, Eviction>> kEviction = {{"window", Eviction::window}, {"rolling", Eviction::rolling}};

constexpr const char* kLocalDoc = "raw bases a base sees: all earlier ones of its window (App. A), or of its k-mer (section 3.2)";
constexpr const char* kHistoryDoc =
    "entries that are seen: of all earlier windows (App. A), of this window and the shared boundary (section 3.2), or none";
constexpr const char* kEvictionDoc =
    "when raw bases are dropped: a whole window when it closes (the paper), or each k-mer when its first base is window.size bases old";
constexpr const char* kTailDoc = "last bases of a closed window that stay raw during the next one, rounded up to whole k-mers";
constexpr const char* kSinksDoc = "first bases of the sequence that stay raw for ever, rounded up to whole k-mers";
constexpr const char* kEntriesDoc =
    "entries per k-mer, fitted unit: all but one are the k-mer's heaviest bases themselves, the last is the fit of the rest";

}  // namespace

void LayerSchedule::visit(config::Fields& f) {
  f.integer("from", from, {0, 1 << 16}, "first block of the range");
  f.integer("to", to, {0, 1 << 16}, "last block of the range");
  f.choice("memory", memory, {{"focus", LayerKind::focus}, {"full", LayerKind::full}},
           "Focus entries, or every key and value for ever");
  f.integer("k", k, {0, int64_t{1} << 32}, "bases per Focus token in these blocks; 0 = inherit");
  choice_or_inherit(f, "local", local, kLocal, kLocalDoc);
  choice_or_inherit(f, "history", history, kHistory, kHistoryDoc);
  choice_or_inherit(f, "eviction", eviction, kEviction, kEvictionDoc);
  f.integer("tail", tail, {-1, int64_t{1} << 32}, concat(kTailDoc, "; -1 = inherit"));
  f.integer("sinks", sinks, {-1, int64_t{1} << 32}, concat(kSinksDoc, "; -1 = inherit"));
  f.integer("entries_per_kmer", entries_per_kmer, {0, 1 << 16}, concat(kEntriesDoc, "; 0 = inherit"));
}

void FocusConfig::visit(config::Fields& f) {
  f.integer("k", k, {1, int64_t{1} << 32}, "bases per Focus token");
  visit_all_but_k(f);
}

void FocusConfig::visit_all_but_k(config::Fields& f) {
  f.choice("stream", stream, {{"side", Stream::side}, {"inline", Stream::inline_tokens}},
           "Focus tokens beside the bases, or inserted among them");
  f.choice("anchor", anchor, {{"end", Anchor::end}, {"start", Anchor::start}, {"center", Anchor::center}},
           "rotary position of an entry within its k-mer");
  f.choice("local", local, kLocal, kLocalDoc);
  f.choice("history", history, kHistory, kHistoryDoc);
  f.choice("eviction", eviction, kEviction, kEvictionDoc);
  f.integer("tail", tail, {0, int64_t{1} << 32}, kTailDoc);
  f.integer("sinks", sinks, {0, int64_t{1} << 32}, kSinksDoc);
  f.integer("entries_per_kmer", entries_per_kmer, {1, 1 << 16}, kEntriesDoc);
  f.choice(
      "unit", unit, {{"fitted", UnitKind::fitted}, {"paper", UnitKind::paper}, {"tables", UnitKind::tables}},
      "how entries are made: fitted in closed form, by the paper's attention, or, a letter per base, from tables learned for the model");
  f.integer("rank", rank, {0, 1 << 16}, "rank of the trained maps; 0 = full");
  f.choice("share", share, {{"layer", Share::layer}, {"all", Share::all}},
           "trained parts of each compressed layer's own, or the same in all");
  f.boolean("bias", bias, "entries carry a log-mass added to their score; off is the paper");
  f.integers("layers", layers, {0, 1 << 16}, "blocks whose attention is compressed; empty = all attention blocks");
  f.list("schedule", schedule, "overrides for ranges of blocks; where ranges overlap the later one wins");
  f.group("fitted", fitted, "the fitted unit");
  f.group("paper", paper, "the paper's unit");
  f.group("tables", tables, "the unit that keeps letters and predicts keys and values");
}

std::optional<FocusConfig> FocusConfig::at(int64_t block) const {
  if (!layers.empty() && std::find(layers.begin(), layers.end(), block) == layers.end()) return std::nullopt;
  FocusConfig out = *this;
  out.schedule.clear();
  bool full = false;
  for (const LayerSchedule& part : schedule) {
    if (block < part.from || block > part.to) continue;
    full = part.memory == LayerKind::full;
    if (part.k > 0) out.k = part.k;
    out.local = part.local.value_or(out.local);
    out.history = part.history.value_or(out.history);
    out.eviction = part.eviction.value_or(out.eviction);
    if (part.tail >= 0) out.tail = part.tail;
    if (part.sinks >= 0) out.sinks = part.sinks;
    if (part.entries_per_kmer > 0) out.entries_per_kmer = part.entries_per_kmer;
  }
  if (full) return std::nullopt;
  return out;
}

void MemoryConfig::visit(config::Fields& f) {
  f.group("window", window, "the window plan");
  f.group("focus", focus, "Focus tokens");
  f.group("storage", storage, "how retained entries are held");
}

}  // namespace focus::compress

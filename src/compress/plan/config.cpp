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
  f.integer("reference_stride", reference_stride, {1, 1 << 20},
            "every n-th query of the span is a reference of the fit");
  f.integer("leave_out", leave_out, {0, 1 << 20},
            "bases nearer than this to a reference query's own are left out of what it measures, since it "
            "finds itself there; "
            "0 = none");
  f.boolean("check", check,
            "switch the entries of a head and window off where queries held out of the fit are better served "
            "by none");
  f.boolean("corrections", corrections, "trained corrections on top of the fit");
  f.boolean("gradient", gradient, "let gradient pass through the fit");
}

FittedUnitConfig FittedUnitConfig::plain() {
  FittedUnitConfig out;
  out.ridge = 3.0;
  out.leave_out = 0;
  out.check = false;
  return out;
}

namespace {

constexpr int64_t kMost = int64_t{1} << 32;  // bases

const std::vector<std::pair<std::string, Local>> kLocal = {{"window", Local::window}, {"kmer", Local::kmer}};
const std::vector<std::pair<std::string, History>> kHistory = {
    {"all", History::all}, {"window", History::window}, {"none", History::none}};
const std::vector<std::pair<std::string, Eviction>> kEviction = {{"window", Eviction::window},
                                                                 {"rolling", Eviction::rolling}};

constexpr const char* kLocalDoc =
    "raw bases a base sees: all earlier ones of its window (App. A), or of its k-mer (section 3.2)";
constexpr const char* kHistoryDoc =
    "entries that are seen: of all earlier windows (App. A), of this window and the shared boundary (section "
    "3.2), or none";
constexpr const char* kEvictionDoc =
    "when raw bases are dropped: a whole window when it closes (the paper), or each k-mer when its first "
    "base is window.size bases old";
constexpr const char* kTailDoc =
    "last bases of a closed window that stay raw during the next one, rounded up to whole k-mers";
constexpr const char* kSinksDoc = "first bases of the sequence that stay raw for ever";
constexpr const char* kRecentDoc =
    "newest bases that are held as codes for each closed window: after n windows the newest n times as many, "
    "less eight for each sink, in place of the entries of their k-mers";
const std::vector<std::pair<std::string, int64_t>> kBits = {{"int8", 8}, {"int4", 4}};
constexpr const char* kEntriesDoc =
    "entries per k-mer, fitted unit: all but one are the k-mer's heaviest bases themselves, the last is the "
    "fit of the rest";

}  // namespace

void RecentConfig::visit(config::Fields& f) {
  f.integer("bases", bases, {0, kMost}, concat(kRecentDoc, "; 0 = none"));
  f.only(f.when(bases > 0, "bases", "is not 0"))
      .choice("dtype", bits, kBits, "bits of a code; keys are scaled per channel, values per base");
}

void QuantisedConfig::visit(config::Fields& f) {
  f.choice("dtype", bits, kBits, "bits of a key's or value's code");
  visit_key_group(f);
}

void QuantisedConfig::visit_key_group(config::Fields& f) {
  f.integer("key_group", key_group, {0, kMost},
            "bases of a window that share a scale for each channel of their keys; 0 = a scale for each base "
            "and head, as values have it");
}

void LayerSchedule::visit(config::Fields& f, const config::Condition& makes_entries) {
  const auto focus = f.when(memory != MemoryKind::full && memory != MemoryKind::quantised, "memory",
                            "is neither 'full' nor 'quantised'");
  const auto entries = memory ? f.when(memory == MemoryKind::focus, "memory", "is 'focus'") : makes_entries;
  f.integer("from", from, {0, 1 << 16}, "first block of the range");
  f.integer("to", to, {0, 1 << 16}, "last block of the range");
  f.choice_or("memory", memory, "inherit",
              {{"focus", MemoryKind::focus},
               {"tables", MemoryKind::tables},
               {"quantised", MemoryKind::quantised},
               {"full", MemoryKind::full}},
              "Focus entries, base tables, or every key and value in few bits or as it is; inherit = "
              "memory.kind");
  f.only(focus).integer_or("k", k, 0, {0, kMost}, "bases per Focus token in these blocks; 0 = inherit");
  f.only(entries).choice_or("local", local, "inherit", kLocal, kLocalDoc);
  f.only(entries).choice_or("history", history, "inherit", kHistory, kHistoryDoc);
  f.only(focus).choice_or("eviction", eviction, "inherit", kEviction, kEvictionDoc);
  f.only(focus).integer_or("tail", tail, -1, {-1, kMost}, concat(kTailDoc, "; -1 = inherit"));
  f.only(entries).integer_or("sinks", sinks, -1, {-1, kMost}, concat(kSinksDoc, "; -1 = inherit"));
  f.only(entries).integer_or("entries_per_kmer", entries_per_kmer, 0, {0, 1 << 16},
                             concat(kEntriesDoc, "; 0 = inherit"));
  f.only(entries).integer_or("recent", recent, -1, {-1, kMost}, concat(kRecentDoc, "; -1 = inherit"));
  f.only(f.when(memory == MemoryKind::quantised, "memory", "is 'quantised'"))
      .choice_or("dtype", bits, "inherit", kBits, "bits of a key's or value's code");
  f.only(entries).choice_or("far", far, "inherit", {{"on", true}, {"off", false}},
                            "far memory on these blocks' entries, where far.kmers is set");
}

void FocusConfig::visit(config::Fields& f, std::optional<int64_t>* given, const config::Condition& others,
                        const config::Condition& entries, const config::Condition& evicts) {
  const bool is_fitted = unit == UnitKind::fitted, is_paper = unit == UnitKind::paper;
  const auto makes_entries = others && entries;
  const auto has_maps = makes_entries && f.when(is_paper || (is_fitted && fitted.corrections), "unit",
                                                "is 'paper', or 'fitted' with fitted.corrections");
  const auto if_fitted = makes_entries && f.when(is_fitted, "unit", "is 'fitted'");
  const auto if_paper = makes_entries && f.when(is_paper, "unit", "is 'paper'");
  const auto sees_window = f.when(local == Local::window, "local", "is 'window'");
  const auto whole_windows = f.when(eviction == Eviction::window, "eviction", "is 'window'");
  if (given == nullptr) {
    f.integer("k", k, {1, kMost}, "bases per Focus token");
  } else {
    f.integer_or("k", *given, 0, {0, kMost},
                 "bases per Focus token; 0 = as the adapter was trained, else 100");
  }
  f.only(makes_entries)
      .choice("stream", stream, {{"side", Stream::side}, {"inline", Stream::inline_tokens}},
              "Focus tokens beside the bases, or inserted among them");
  f.only(has_maps).choice("anchor", anchor,
                          {{"end", Anchor::end}, {"start", Anchor::start}, {"center", Anchor::center}},
                          "rotary position of an entry within its k-mer");
  f.only(makes_entries).choice("local", local, kLocal, kLocalDoc);
  f.only(makes_entries).choice("history", history, kHistory, kHistoryDoc);
  f.only(others && evicts && sees_window).choice("eviction", eviction, kEviction, kEvictionDoc);
  f.only(others && evicts && sees_window && whole_windows).integer("tail", tail, {0, kMost}, kTailDoc);
  f.only(makes_entries && sees_window).integer("sinks", sinks, {0, kMost}, kSinksDoc);
  f.only(makes_entries && sees_window && whole_windows).group("recent", recent, "newest bases as codes");
  f.only(if_fitted).integer("entries_per_kmer", entries_per_kmer, {1, 1 << 16}, kEntriesDoc);
  f.only(makes_entries)
      .choice("unit", unit, {{"fitted", UnitKind::fitted}, {"paper", UnitKind::paper}},
              "how entries are made: fitted in closed form, or by the paper's attention");
  f.only(has_maps).integer("rank", rank, {0, 1 << 16}, "rank of the trained maps; 0 = full");
  f.only(has_maps).choice("share", share, {{"layer", Share::layer}, {"all", Share::all}},
                          "trained parts of each compressed layer's own, or the same in all");
  f.only(if_paper).boolean("bias", bias, "entries carry a log-mass added to their score; off is the paper");
  f.only(others).integers("layers", layers, {0, 1 << 16},
                          "blocks whose attention is compressed; empty = all attention blocks");
  f.only(others).list(
      "schedule", schedule, [&](LayerSchedule& part, config::Fields& g) { part.visit(g, entries); },
      "overrides for ranges of blocks; where ranges overlap the later one wins");
  f.only(if_fitted).group("fitted", fitted, "the fitted unit");
  f.only(if_paper).group("paper", paper, "the paper's unit");
}

std::optional<FocusConfig> FocusConfig::at(int64_t block) const {
  if (!layers.empty() && std::find(layers.begin(), layers.end(), block) == layers.end()) return std::nullopt;
  FocusConfig out = *this;
  out.schedule.clear();
  bool full = false;
  for (const LayerSchedule& part : schedule) {
    if (block < part.from || block > part.to) continue;
    full = part.memory == MemoryKind::full || part.memory == MemoryKind::quantised;
    out.k = part.k.value_or(out.k);
    out.local = part.local.value_or(out.local);
    out.history = part.history.value_or(out.history);
    out.eviction = part.eviction.value_or(out.eviction);
    out.tail = part.tail.value_or(out.tail);
    out.sinks = part.sinks.value_or(out.sinks);
    out.entries_per_kmer = part.entries_per_kmer.value_or(out.entries_per_kmer);
    out.recent.bases = part.recent.value_or(out.recent.bases);
  }
  if (out.recent.bases == 0) out.recent = {};
  if (full) return std::nullopt;
  return out;
}

void MemoryConfig::visit(config::Fields& f, const config::Condition& used) {
  const auto entries = f.when(uses(MemoryKind::focus), "memory.kind", "is 'focus'");
  const auto evicts =
      f.when(uses(MemoryKind::focus) || uses(MemoryKind::tables), "memory.kind", "is 'focus' or 'tables'");
  const bool codes = uses(MemoryKind::quantised);
  const auto stores =
      f.when(uses(MemoryKind::focus) || codes, "memory.kind", "is 'focus' or 'quantised'") &&
      f.when(focus.history != History::none || codes, "focus.history", "is 'all' or 'window'");
  const auto of_memory = [&](config::Fields& g) {
    g.choice(
        "kind", kind,
        {{"focus", MemoryKind::focus}, {"tables", MemoryKind::tables}, {"quantised", MemoryKind::quantised}},
        "of the compressed layers: Focus entries, base memory, a letter per base and tables learned "
        "for the model, or every key and value in 8 or 4 bits");
  };
  const auto of_focus = [&](config::Fields& g) { focus.visit(g, nullptr, {}, entries, evicts); };
  const auto of_storage = [&](config::Fields& g) { storage.visit(g, entries); };
  f.only(used).group("memory", config::Visit(of_memory), "what is kept of closed windows");
  f.only(used).group("window", window, "the window plan");
  f.only(used).group("focus", config::Visit(of_focus), "Focus tokens, and which layers are compressed");
  f.only(used && f.when(uses(MemoryKind::tables), "memory.kind", "is 'tables'"))
      .group("tables", tables, "base tables");
  f.only(used && f.when(codes, "memory.kind", "is 'quantised'"))
      .group("quantised", quantised, "keys and values in few bits");
  f.only(used && stores).group("storage", config::Visit(of_storage), "how retained entries are held");
  f.only(used && entries).group("far", far, "far memory: exact keys and values fetched where letters repeat");
}

MemoryKind MemoryConfig::kind_at(int64_t block) const {
  if (!focus.layers.empty() &&
      std::find(focus.layers.begin(), focus.layers.end(), block) == focus.layers.end())
    return MemoryKind::full;
  MemoryKind out = kind;
  for (const LayerSchedule& part : focus.schedule) {
    if (block >= part.from && block <= part.to) out = part.memory.value_or(kind);
  }
  return out;
}

QuantisedConfig MemoryConfig::quantised_at(int64_t block) const {
  QuantisedConfig out = quantised;
  for (const LayerSchedule& part : focus.schedule) {
    if (block >= part.from && block <= part.to) out.bits = part.bits.value_or(out.bits);
  }
  return out;
}

bool MemoryConfig::far_at(int64_t block) const {
  bool on = far.active() && kind_at(block) == MemoryKind::focus;
  for (const LayerSchedule& part : focus.schedule) {
    if (block >= part.from && block <= part.to) on = on && part.far.value_or(true);
  }
  return on;
}

bool MemoryConfig::uses(MemoryKind of_some) const {
  const auto chosen = [&](const LayerSchedule& part) { return part.memory == of_some; };
  return kind == of_some || std::any_of(focus.schedule.begin(), focus.schedule.end(), chosen);
}

MemoryConfig PlanOverride::on(MemoryConfig memory) const {
  memory.window.size = window.value_or(memory.window.size);
  memory.focus.k = k.value_or(memory.focus.k);
  return memory;
}

}  // namespace focus::compress

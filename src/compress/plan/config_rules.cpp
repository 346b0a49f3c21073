// Which settings of compressed memory contradict each other, or would have no effect.
#include <set>

#include "focus/compress/plan/config.h"
#include "focus/compress/plan/plan.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

/// Visibility rules that contradict each other or have no effect. `where`: the settings' place, for messages.
void validate_visibility(const WindowConfig& window, const FocusConfig& focus, const std::string& where) {
  const WindowPlan plan(window, focus.k);
  const bool is_inline = focus.stream == Stream::inline_tokens, paper = focus.unit == UnitKind::paper;
  if (focus.history == History::window && focus.local == Local::window && !is_inline && window.remainder == Remainder::drop) {
    fail<ConfigError>(
        where, ".history 'window' passes on the last k-mer's entry only; with window.remainder 'drop' it would not cover the window's end");
  }
  if (paper && focus.local == Local::kmer && focus.paper.focus_sees == FocusSees::window)
    fail<ConfigError>(
        where, ".local 'kmer' drops a k-mer's raw bases when it closes, so focus.paper.focus_sees 'window' finds no others; use 'kmer'");
  if (focus.eviction == Eviction::rolling) {
    if (window.unit == WindowUnit::focus)
      fail<ConfigError>(where, ".eviction 'rolling' measures age in bases: it needs window.unit 'bases'");
    if (focus.local == Local::kmer)
      fail<ConfigError>(where, ".eviction has no effect with ", where, ".local 'kmer': a base sees its own k-mer only");
    if (focus.history == History::window)
      fail<ConfigError>(where, ".eviction 'rolling' has no windows whose entries ", where, ".history 'window' could name");
    if (focus.tail > 0)
      fail<ConfigError>(where, ".tail has no effect with ", where, ".eviction 'rolling': the newest window.size bases are always raw");
    if (paper && focus.paper.focus_sees == FocusSees::window)
      fail<ConfigError>(where, ".paper.focus_sees 'window' has no meaning with ", where,
                        ".eviction 'rolling': the oldest k-mer has nothing raw before it");
  }
  for (const auto& [name, bases] : {std::pair{"tail", focus.tail}, std::pair{"sinks", focus.sinks}}) {
    if (bases == 0) continue;
    if (focus.local == Local::kmer)
      fail<ConfigError>(where, ".", name, " has no effect with ", where, ".local 'kmer': a base sees raw bases of its own k-mer only");
    if (focus.history == History::window)
      fail<ConfigError>(where, ".", name, " contradicts ", where, ".history 'window', which passes on one boundary entry and nothing else");
  }
  if (focus.tail > plan.window_bases())
    fail<ConfigError>(where, ".tail = ", focus.tail, " is longer than a window of ", plan.window_bases(), " bases");
  if (focus.sinks > 0) {
    const int64_t most = plan.kmer(0, plan.num_kmers(0) - 1).end;
    if (focus.sinks > most)
      fail<ConfigError>(where, ".sinks = ", focus.sinks, " reaches beyond the ", most, " bases of the first window's k-mers");
    if (is_inline && paper)
      fail<ConfigError>(where,
                        ".sinks with focus.stream 'inline' and focus.unit 'paper': the first Focus tokens are entries before the window "
                        "closes, and would stand beside their own raw bases for ever");
  }
  if (focus.entries_per_kmer > 1 && paper)
    fail<ConfigError>(
        where, ".entries_per_kmer above 1 needs focus.unit 'fitted': the paper's unit makes one entry per Focus token; use a smaller k");
}

void validate_schedule(const MemoryConfig& config) {
  const FocusConfig& focus = config.focus;
  for (std::size_t i = 0; i < focus.schedule.size(); ++i) {
    const LayerSchedule& part = focus.schedule[i];
    const std::string where = concat("focus.schedule.", i);
    if (part.to < part.from) fail<ConfigError>(where, ": to = ", part.to, " lies before from = ", part.from);
    const bool overrides =
        part.k > 0 || part.local || part.history || part.eviction || part.tail >= 0 || part.sinks >= 0 || part.entries_per_kmer > 0;
    if (part.memory == LayerKind::full && overrides)
      fail<ConfigError>(where, ": with memory 'full' every key and value is kept, the other settings have no effect; remove them");
    if (part.memory == LayerKind::focus && !overrides && focus.schedule.size() == 1)
      fail<ConfigError>(where, " overrides nothing; remove it");
    if (part.k > 0 && focus.stream == Stream::inline_tokens)
      fail<ConfigError>(where, ".k: with focus.stream 'inline' Focus tokens pass through every layer, so all layers share one k");
    const bool moves_close = part.k > 0 || part.local || part.eviction || part.sinks >= 0;
    if (focus.unit == UnitKind::paper && moves_close)
      fail<ConfigError>(where,
                        ": with focus.unit 'paper' Focus states pass from layer to layer, so all layers close the same k-mers at the same "
                        "time; only memory, history and tail may differ");
    // Settings change at the ends of ranges only.
    for (const int64_t block : {part.from - 1, part.from, part.to, part.to + 1}) {
      if (const auto layer = focus.at(block)) validate_visibility(config.window, *layer, where);
    }
  }
}

void validate_tables(const FocusConfig& focus) {
  const TablesConfig tables, &own = focus.tables;
  const FocusConfig fresh;
  if (focus.unit != UnitKind::tables) {
    if (own.word != tables.word || own.offsets != tables.offsets || own.ridge != tables.ridge ||
        own.fit_sequences != tables.fit_sequences || own.fit_length != tables.fit_length)
      fail<ConfigError>("settings under focus.tables have no effect unless focus.unit is 'tables'; remove them");
    return;
  }
  const int64_t features = static_cast<int64_t>(own.offsets.size()) * ((int64_t{1} << (2 * own.word)) + 1);
  if (features > 20'000)
    fail<ConfigError>("focus.tables: ", own.offsets.size(), " tables for words of ", own.word, " letters have ", features,
                      " rows; their regression needs a square matrix of that, so 20000 is the most; use a shorter word or fewer offsets");
  if (own.offsets.empty()) fail<ConfigError>("focus.tables.offsets: at least one word is needed");
  if (std::set<int64_t>(own.offsets.begin(), own.offsets.end()).size() != own.offsets.size())
    fail<ConfigError>("focus.tables.offsets names an offset twice: two tables of the same word would share one effect between them");
  if (focus.stream != Stream::side)
    fail<ConfigError>("focus.unit 'tables' keeps letters and has no Focus tokens to put into the stream; use focus.stream 'side'");
  if (focus.local != Local::window || focus.history != History::all || focus.sinks > 0 || focus.entries_per_kmer != 1)
    fail<ConfigError>(
        "focus.unit 'tables' remembers every past base; focus.local, history, sinks and entries_per_kmer have no meaning for it");
  if (focus.rank != fresh.rank || focus.anchor != fresh.anchor || focus.bias != fresh.bias || focus.share != fresh.share)
    fail<ConfigError>("focus.rank, anchor, bias and share have no effect with focus.unit 'tables'; remove them");
  for (const LayerSchedule& part : focus.schedule) {
    if (part.local || part.history || part.sinks >= 0 || part.entries_per_kmer > 0)
      fail<ConfigError>("focus.schedule: with focus.unit 'tables' only memory, eviction, tail and k may differ between layers");
  }
}

}  // namespace

void MemoryConfig::validate() const {
  if (focus.unit == UnitKind::tables && storage != StorageConfig{})
    fail<ConfigError>("settings under storage have no effect with focus.unit 'tables': no key and no value is stored");
  if (focus.history == History::none && storage != StorageConfig{})
    fail<ConfigError>("settings under storage have no effect with focus.history 'none': nothing is retained");
  const WindowPlan plan(window, focus.k);
  if (focus.stream == Stream::inline_tokens && focus.anchor != Anchor::end) {
    fail<ConfigError>(
        "focus.anchor must be 'end' with focus.stream 'inline': a Focus token before or inside its k-mer would show the k-mer to its own "
        "bases through the Hyena convolutions");
  }
  validate_visibility(window, focus, "focus");
  validate_schedule(*this);
  const FittedUnitConfig fitted_default;
  const PaperUnitConfig paper_default;
  if (focus.unit != UnitKind::fitted &&
      (focus.fitted.ridge != fitted_default.ridge || focus.fitted.reference_stride != fitted_default.reference_stride ||
       focus.fitted.corrections != fitted_default.corrections || focus.fitted.gradient != fitted_default.gradient)) {
    fail<ConfigError>("settings under focus.fitted have no effect unless focus.unit is 'fitted'; remove them");
  }
  if (focus.unit != UnitKind::paper && (focus.paper.focus_sees != paper_default.focus_sees || focus.paper.update != paper_default.update ||
                                        focus.paper.entry != paper_default.entry)) {
    fail<ConfigError>("settings under focus.paper have no effect unless focus.unit is 'paper'; remove them");
  }
  validate_tables(focus);
  const FocusConfig focus_default;
  if (focus.unit == UnitKind::fitted && !focus.fitted.corrections &&
      (focus.rank != focus_default.rank || focus.anchor != focus_default.anchor || focus.share != focus_default.share)) {
    fail<ConfigError>(
        "focus.rank, focus.anchor and focus.share have no effect with focus.fitted.corrections off: the fit has no trained map, and finds "
        "its keys "
        "where they are");
  }
  if (focus.unit == UnitKind::fitted && !focus.bias)
    fail<ConfigError>("focus.bias off has no meaning with focus.unit 'fitted': the fit is of key and log-mass together");
}

}  // namespace focus::compress

// Which settings of compressed memory contradict each other. The field lists say when a setting has an
// effect.
#include <set>

#include "focus/compress/plan/config.h"
#include "focus/compress/plan/plan.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

/// `where`: place of the settings, for messages.
void validate_visibility(const WindowConfig& window, const FocusConfig& focus, const std::string& where) {
  config::refuse_idle(focus, where + ".");
  const WindowPlan plan(window, focus.k);
  const bool is_inline = focus.stream == Stream::inline_tokens, paper = focus.unit == UnitKind::paper;
  if (focus.history == History::window && focus.local == Local::window && !is_inline &&
      window.remainder == Remainder::drop)
    fail<ConfigError>(where, ".history 'window' passes on the last k-mer's entry only; ",
                      "with window.remainder 'drop' it would not cover the window's end");
  if (paper && focus.local == Local::kmer && focus.paper.focus_sees == FocusSees::window)
    fail<ConfigError>(where, ".local 'kmer' drops a k-mer's raw bases when it closes, ",
                      "so focus.paper.focus_sees 'window' finds no others; use 'kmer'");
  if (focus.eviction == Eviction::rolling) {
    if (window.unit == WindowUnit::focus)
      fail<ConfigError>(where, ".eviction 'rolling' measures age in bases: it needs window.unit 'bases'");
    if (focus.history == History::window)
      fail<ConfigError>(where, ".eviction 'rolling' has no windows whose entries ", where,
                        ".history 'window' could name");
    if (paper && focus.paper.focus_sees == FocusSees::window)
      fail<ConfigError>(where, ".paper.focus_sees 'window' has no meaning with ", where,
                        ".eviction 'rolling': the oldest k-mer has nothing raw before it");
  }
  for (const auto& [name, bases] : {std::pair{"tail", focus.tail}, std::pair{"sinks", focus.sinks}}) {
    if (bases > 0 && focus.history == History::window)
      fail<ConfigError>(where, ".", name, " contradicts ", where,
                        ".history 'window', which passes on one boundary entry and nothing else");
  }
  if (focus.recent.bases > 0) {
    if (focus.history != History::all)
      fail<ConfigError>(where, ".recent.bases stands in for the newest entries of ", where, ".history 'all'");
    if (focus.tail > 0)
      fail<ConfigError>(where, ".recent.bases and ", where,
                        ".tail both keep a closed window's last bases; choose one");
    if (is_inline && paper)
      fail<ConfigError>(where,
                        ".recent.bases needs entries that are shown after their window has closed; with ",
                        "focus.stream 'inline' and focus.unit 'paper' they are shown at once");
  }
  if (focus.tail > plan.window_bases())
    fail<ConfigError>(where, ".tail = ", focus.tail, " is longer than a window of ", plan.window_bases(),
                      " bases");
  if (focus.sinks > 0) {
    const int64_t most = plan.kmer(0, plan.num_kmers(0) - 1).end;
    if (focus.sinks > most)
      fail<ConfigError>(where, ".sinks = ", focus.sinks, " reaches beyond the ", most,
                        " bases of the first window's k-mers");
    if (is_inline && paper)
      fail<ConfigError>(
          where, ".sinks with focus.stream 'inline' and focus.unit 'paper': the first Focus tokens ",
          "are entries before the window closes, and would stand beside their raw bases for ever");
  }
}

void validate_schedule(const MemoryConfig& config) {
  const FocusConfig& focus = config.focus;
  for (std::size_t i = 0; i < focus.schedule.size(); ++i) {
    const LayerSchedule& part = focus.schedule[i];
    const std::string where = concat("focus.schedule.", i);
    if (part.to < part.from) fail<ConfigError>(where, ": to = ", part.to, " lies before from = ", part.from);
    const bool moves_close = part.k || part.local || part.eviction || part.sinks;
    const bool overrides = moves_close || part.history || part.tail || part.entries_per_kmer || part.recent ||
                           part.bits || part.far;
    if (part.memory.value_or(config.kind) == config.kind && !overrides && focus.schedule.size() == 1)
      fail<ConfigError>(where, " overrides nothing; remove it");
    if (part.k && focus.stream == Stream::inline_tokens)
      fail<ConfigError>(where, ".k: with focus.stream 'inline' Focus tokens pass through every layer, ",
                        "so all layers share one k");
    if (part.far && !config.far.active())
      fail<ConfigError>(where, ".far has no effect without far.kmers; remove it");
    if (focus.unit == UnitKind::paper && moves_close)
      fail<ConfigError>(where, ": with focus.unit 'paper' Focus states pass from layer to layer, ",
                        "so all layers close the same k-mers at the same time; ",
                        "only memory, history and tail may differ");
    // Settings change at the ends of ranges only.
    for (const int64_t block : {part.from - 1, part.from, part.to, part.to + 1}) {
      if (const auto layer = focus.at(block)) validate_visibility(config.window, *layer, where);
    }
  }
}

void validate_tables(const TablesConfig& tables) {
  const int64_t features =
      static_cast<int64_t>(tables.offsets.size()) * ((int64_t{1} << (2 * tables.word)) + 1);
  if (features > 20'000)
    fail<ConfigError>("tables: ", tables.offsets.size(), " tables for words of ", tables.word,
                      " letters have ", features, " rows; their regression needs a square matrix of that, ",
                      "so 20000 is the most; use a shorter word or fewer offsets");
  if (tables.offsets.empty()) fail<ConfigError>("tables.offsets: at least one word is needed");
  if (std::set<int64_t>(tables.offsets.begin(), tables.offsets.end()).size() != tables.offsets.size())
    fail<ConfigError>("tables.offsets names an offset twice: ",
                      "two tables of the same word would share one effect between them");
}

void validate_far(const MemoryConfig& config) {
  if (!config.far.active()) return;
  for (std::size_t i = 0; i < config.focus.schedule.size(); ++i) {
    const LayerSchedule& part = config.focus.schedule[i];
    for (int64_t block = part.from; part.k && block <= part.to; ++block) {
      if (config.far_at(block) && config.focus.at(block)->k != config.focus.k)
        fail<ConfigError>("focus.schedule.", i, ".k: with far memory all layers fetch the same k-mers, ",
                          "so all share one k; remove it, or set far 'off' in these blocks");
    }
  }
}

}  // namespace

void MemoryConfig::validate() const {
  FOCUS_CHECK(kind != MemoryKind::full, "memory.kind is of the layers that are compressed");
  config::refuse_idle(*this);
  if (focus.stream == Stream::inline_tokens && focus.anchor != Anchor::end)
    fail<ConfigError>(
        "focus.anchor must be 'end' with focus.stream 'inline': a Focus token before or inside ",
        "its k-mer would show the k-mer to its own bases through the Hyena convolutions");
  validate_visibility(window, focus, "focus");
  validate_schedule(*this);
  validate_tables(tables);
  validate_far(*this);
}

}  // namespace focus::compress

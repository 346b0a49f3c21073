#include "focus/compress/config.h"

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

void FocusConfig::visit(config::Fields& f) {
  f.integer("k", k, {1, int64_t{1} << 32}, "bases per Focus token");
  visit_all_but_k(f);
}

void FocusConfig::visit_all_but_k(config::Fields& f) {
  f.choice("stream", stream, {{"side", Stream::side}, {"inline", Stream::inline_tokens}},
           "Focus tokens beside the bases, or inserted among them");
  f.choice("anchor", anchor, {{"end", Anchor::end}, {"start", Anchor::start}, {"center", Anchor::center}},
           "rotary position of an entry within its k-mer");
  f.choice("local", local, {{"window", Local::window}, {"kmer", Local::kmer}},
           "raw bases a base sees: all earlier ones of its window (App. A), or of its k-mer (section 3.2)");
  f.choice("history", history, {{"all", History::all}, {"window", History::window}, {"none", History::none}},
           "entries that are seen: of all earlier windows (App. A), of this window and the shared boundary (section 3.2), or none");
  f.choice("unit", unit, {{"fitted", UnitKind::fitted}, {"paper", UnitKind::paper}}, "how an entry is made");
  f.integer("rank", rank, {0, 1 << 16}, "rank of the trained maps; 0 = full");
  f.choice("share", share, {{"layer", Share::layer}, {"all", Share::all}},
           "trained parts of each compressed layer's own, or the same in all");
  f.boolean("bias", bias, "entries carry a log-mass added to their score; off is the paper");
  f.integers("layers", layers, {0, 1 << 16}, "blocks whose attention is compressed; empty = all attention blocks");
  f.group("fitted", fitted, "the fitted unit");
  f.group("paper", paper, "the paper's unit");
}

void MemoryConfig::visit(config::Fields& f) {
  f.group("window", window, "the window plan");
  f.group("focus", focus, "Focus tokens");
}

void MemoryConfig::validate() const {
  const WindowPlan plan(window, focus.k);
  if (focus.stream == Stream::inline_tokens && focus.anchor != Anchor::end) {
    fail<ConfigError>(
        "focus.anchor must be 'end' with focus.stream 'inline': a Focus token before or inside its k-mer would show the k-mer to its own "
        "bases through the Hyena convolutions");
  }
  if (focus.history == History::window && focus.local == Local::window && focus.stream == Stream::side &&
      window.remainder == Remainder::drop) {
    fail<ConfigError>(
        "focus.history 'window' passes on the last k-mer's entry only; with window.remainder 'drop' it would not cover the window's end");
  }
  const FittedUnitConfig fitted_default;
  const PaperUnitConfig paper_default;
  if (focus.unit == UnitKind::paper &&
      (focus.fitted.ridge != fitted_default.ridge || focus.fitted.reference_stride != fitted_default.reference_stride ||
       focus.fitted.corrections != fitted_default.corrections || focus.fitted.gradient != fitted_default.gradient)) {
    fail<ConfigError>("settings under focus.fitted have no effect with focus.unit 'paper'; remove them");
  }
  if (focus.unit == UnitKind::fitted && (focus.paper.focus_sees != paper_default.focus_sees || focus.paper.update != paper_default.update ||
                                         focus.paper.entry != paper_default.entry)) {
    fail<ConfigError>("settings under focus.paper have no effect with focus.unit 'fitted'; remove them, or set focus.unit to 'paper'");
  }
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

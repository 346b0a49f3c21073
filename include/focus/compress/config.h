// What is retained of closed windows, and by which Focus unit: the configuration of compressed memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/compress/plan.h"
#include "focus/config/fields.h"

namespace focus::compress {

enum class Stream { side, inline_tokens };
enum class Anchor { end, start, center };
enum class Local { window, kmer };
enum class History { all, window, none };
enum class FocusSees { kmer, window };
enum class UnitKind { fitted, paper };
enum class Update { residual, replace };
enum class EntrySource { backbone, own };
enum class Share { layer, all };

/// The paper's unit (Eq. 2, 3): masked multi-head attention with the Focus token as the query.
struct PaperUnitConfig {
  FocusSees focus_sees = FocusSees::kmer;
  Update update = Update::residual;
  EntrySource entry = EntrySource::backbone;
  void visit(config::Fields& f);
};

/// The fitted unit: ridge regression of each k-mer's log-mass on the window's own queries, rotated one span ahead.
struct FittedUnitConfig {
  double ridge = 3.0;
  int64_t reference_stride = 4;  // every n-th query is a reference
  bool corrections = true;       // trained low-rank corrections of key, value and beta on top of the fit
  bool gradient = true;          // let gradient pass through the fit (from an entry to the states it was fitted to)
  void visit(config::Fields& f);
};

struct FocusConfig {
  int64_t k = 100;
  Stream stream = Stream::side;
  Anchor anchor = Anchor::end;
  Local local = Local::window;
  History history = History::all;
  UnitKind unit = UnitKind::fitted;
  int64_t rank = 16;            // of trained maps; 0 = full
  Share share = Share::layer;   // a unit for each compressed layer, or one for all
  bool bias = true;             // entries carry a log-mass beta; off = the paper
  std::vector<int64_t> layers;  // block indices of the attention layers that are compressed; empty = all
  FittedUnitConfig fitted;
  PaperUnitConfig paper;
  void visit(config::Fields& f);
  void visit_all_but_k(config::Fields& f);
};

struct MemoryConfig {
  WindowConfig window;
  FocusConfig focus;
  void visit(config::Fields& f);
  /// Combinations that make no sense, and settings that would have no effect. ConfigError with the reason.
  void validate() const;
};

}  // namespace focus::compress

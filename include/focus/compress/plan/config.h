// What is retained of closed windows, and the Focus unit that makes it: the configuration of compressed
// memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "focus/compress/far/config.h"
#include "focus/compress/memory/storage.h"
#include "focus/compress/plan/plan.h"
#include "focus/config/fields.h"

namespace focus::compress {

enum class Stream { side, inline_tokens };
enum class Anchor { end, start, center };
enum class Local { window, kmer };
enum class History { all, window, none };
enum class FocusSees { kmer, window };
/// window: a window's raw bases go when it closes (the paper); rolling: a k-mer's go when its first base is W
/// bases old.
enum class Eviction { window, rolling };
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

/// Newest bases of closed windows, held as codes beside the entries of what is older.
struct RecentConfig {
  int64_t bases = 0;  // for each closed window: after n windows the newest n times as many are held
  int64_t bits = 4;   // 8 or 4
  void visit(config::Fields& f);
  bool operator==(const RecentConfig&) const = default;
};

/// The fitted unit: ridge regression of each k-mer's log-mass on the window's own queries, rotated one span
/// ahead.
struct FittedUnitConfig {
  double ridge = 1.0;
  int64_t reference_stride = 4;  // every n-th query is a reference
  int64_t leave_out =
      2;  // bases nearer than this to a reference's own are no part of what it measures; 0 = none left out
  bool check = true;        // switch entries off where queries held out of the fit are better served by none
  bool corrections = true;  // trained low-rank corrections of key, value and beta on top of the fit
  bool gradient = true;  // let gradient pass through the fit (from an entry to the states it was fitted to)
  void visit(config::Fields& f);
  /// As the unit was before `leave_out` and `check` existed: what files mean that name neither.
  static FittedUnitConfig plain();
};

/// What a layer keeps of closed windows: Focus entries, letters from which base tables predict keys and
/// values, all keys and values in few bits, or as they are.
enum class MemoryKind { focus, tables, quantised, full };

/// Overrides for a range of blocks. A field without a value is as in FocusConfig.
struct LayerSchedule {
  int64_t from = 0, to = 0;          // block indices, both included
  std::optional<MemoryKind> memory;  // none: memory.kind
  std::optional<int64_t> k;
  std::optional<Local> local;
  std::optional<History> history;
  std::optional<Eviction> eviction;
  std::optional<int64_t> tail, sinks, entries_per_kmer;
  std::optional<int64_t> recent;  // recent.bases
  std::optional<int64_t> bits;    // of quantised memory
  std::optional<bool> far;        // none: on
  /// `makes_entries`: whether blocks do that do not choose their memory here.
  void visit(config::Fields& f, const config::Condition& makes_entries = {});
  bool operator==(const LayerSchedule&) const = default;
};

/// Base memory instead of summaries: letters of past bases, and tables from which their keys and values are
/// predicted.
struct TablesConfig {
  int64_t word = 4;
  std::vector<int64_t> offsets = {0, 2,  4,  6,
                                  8, 10, 12, 16};  // letters between a base and the last letter of each word
  double ridge = 10.0;
  int64_t fit_sequences = 64;
  int64_t fit_length = 16384;
  void visit(config::Fields& f);
};

/// All keys and values in few bits.
struct QuantisedConfig {
  int64_t bits = 8;               // 8 or 4
  int64_t key_group = kKeyGroup;  // bases of a window that share a scale for each channel of their keys; 0:
                                  // as values have it, a scale for each base and head
  void visit(config::Fields& f);
  void visit_key_group(config::Fields& f);
  bool operator==(const QuantisedConfig&) const = default;
};

struct FocusConfig {
  int64_t k = 100;
  Stream stream = Stream::side;
  Anchor anchor = Anchor::end;
  Local local = Local::window;
  History history = History::all;
  Eviction eviction = Eviction::window;
  int64_t tail = 0;  // last bases of a closed window kept raw during the next one, rounded up to whole k-mers
  int64_t sinks = 0;  // first bases of the sequence kept raw for ever
  RecentConfig recent;
  int64_t entries_per_kmer = 1;  // fitted unit: all but one are the k-mer's heaviest bases themselves, the
                                 // last is the fit of the rest
  UnitKind unit = UnitKind::fitted;
  int64_t rank = 16;            // of trained maps; 0 = full
  Share share = Share::layer;   // a unit for each compressed layer, or one for all
  bool bias = true;             // entries carry a log-mass beta; off = the paper
  std::vector<int64_t> layers;  // block indices of the attention layers that are compressed; empty = all
  std::vector<LayerSchedule> schedule;  // per-layer overrides; a later one wins
  FittedUnitConfig fitted;
  PaperUnitConfig paper;
  /// `given`, `others`: as WindowConfig::visit, for k. `entries`: whether any layer has Focus entries;
  /// `evicts`: whether any has a choice of which raw bases go.
  void visit(config::Fields& f, std::optional<int64_t>* given = nullptr, const config::Condition& others = {},
             const config::Condition& entries = {}, const config::Condition& evicts = {});
  /// The settings of one block, its overrides applied (`schedule` empty); nothing where the block keeps
  /// everything.
  std::optional<FocusConfig> at(int64_t block) const;
};

struct MemoryConfig {
  MemoryKind kind =
      MemoryKind::focus;  // of the layers for which focus.schedule says nothing else; not `full`
  WindowConfig window;
  FocusConfig focus;
  TablesConfig tables;
  QuantisedConfig quantised;
  StorageConfig storage;
  FarConfig far;
  void visit(config::Fields& f, const config::Condition& used = {});
  /// Of one block.
  MemoryKind kind_at(int64_t block) const;
  QuantisedConfig quantised_at(int64_t block) const;
  /// Whether far memory stands on the block's entries.
  bool far_at(int64_t block) const;
  /// Whether any block may be of that kind.
  bool uses(MemoryKind of_some) const;
  /// Combinations that make no sense, and settings without effect. ConfigError with the reason.
  void validate() const;
};

/// Another window and k than a memory has: the parameters of a unit depend on neither.
struct PlanOverride {
  std::optional<int64_t> window, k;
  /// `memory`, with what is set here in place of its own.
  MemoryConfig on(MemoryConfig memory) const;
};

}  // namespace focus::compress

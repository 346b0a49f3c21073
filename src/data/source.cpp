#include "source.h"

#include <utility>

#include "focus/core/error.h"
#include "focus/data/fasta.h"
#include "focus/data/jsonl.h"
#include "focus/data/letters.h"
#include "focus/data/open_sequences.h"
#include "focus/data/region.h"
#include "formats/printable.h"

namespace focus::data {
namespace {

// The excluded stretches of each source; a text that fits no source at all is an error, as a held-out set
// must not be lost to a typing slip.
std::vector<std::vector<Region>> resolve_exclusions(const std::vector<std::string>& texts,
                                                    const std::vector<Source>& sources) {
  std::vector<std::vector<Region>> result(sources.size());
  for (const std::string& text : texts) {
    const std::vector<Region> bed = is_bed(text) ? read_bed(text) : std::vector<Region>{};
    std::vector<bool> used(std::max<std::size_t>(1, bed.size()), false);
    std::string reason = "no source has named records (exclude does not reach into jsonl)";
    for (std::size_t s = 0; s < sources.size(); ++s) {
      if (!sources[s].file) continue;
      const SequenceFile& file = *sources[s].file;
      if (bed.empty()) {
        try {
          result[s].push_back(parse_region(text, file));
          used[0] = true;
        } catch (const DataError& error) {
          reason = error.what();
        }
        continue;
      }
      for (std::size_t i = 0; i < bed.size(); ++i) {
        if (!file.contains(bed[i].name)) continue;
        result[s].push_back(bed[i]);
        used[i] = true;
      }
    }
    const auto unused = std::find(used.begin(), used.end(), false);
    if (unused == used.end()) continue;
    if (bed.empty())
      fail<DataError>("excluded region ", formats::printable(text), " fits no source: ", reason);
    const Region& region = bed[static_cast<std::size_t>(unused - used.begin())];
    fail<DataError>("excluded region ", formats::printable(format_region(region)), " of '", text,
                    "': no source holds that record");
  }
  return result;
}

/// Counts what is held against memory_mb, over all sources together.
struct Memory {
  int64_t limit_bytes = 0, used_bytes = 0;
  int64_t left() const { return limit_bytes - used_bytes; }
};

void load_jsonl(Source& source, const std::filesystem::path& path, Memory& memory) {
  JsonlReader reader(path, line_prefix(source.path, path));
  const std::size_t before = source.stretches.size();
  for (JsonlRecord record; reader.next(record);) {
    const auto length = static_cast<int64_t>(record.text.size());
    if (length < 2)
      fail<DataError>("line ", record.line, " of '", path.string(),
                      "' has one base; a training sequence needs two or more");
    clean(record.text, CasePolicy::upper, AmbiguousPolicy::mask,
          concat(record.name, " (line ", record.line, " of ", path.string(), ")"));
    memory.used_bytes += length;
    if (memory.left() < 0)
      fail<DataError>(
          "'", source.path, "' brings what must be held in memory to more than ", memory.limit_bytes >> 20,
          " MiB of sequence; raise memory_mb, or pack it with: focus-train pack --jsonl '", source.path,
          "' -o '", std::filesystem::path(source.path).stem().string(), ".h5', which is read piece by piece");
    Stretch& stretch = source.stretches.emplace_back();
    stretch.region = Region{record.name, 0, length};
    stretch.letters = record.text;
  }
  if (source.stretches.size() == before) fail<DataError>("'", path.string(), "' holds no sequence");
}

Source open_source(const SourceConfig& given, bool allow_truncated, Memory& memory) {
  Source source;
  source.path = !given.fasta.empty() ? given.fasta : !given.jsonl.empty() ? given.jsonl : given.hdf5;
  source.weight = given.weight;
  if (!given.jsonl.empty()) {
    source.drawing = Drawing::documents;
    for (const auto& file : sequence_files(given.jsonl, SequenceKind::jsonl))
      load_jsonl(source, file, memory);
  } else if (!given.hdf5.empty()) {
    auto store = std::make_unique<TokenStore>(given.hdf5);
    source.drawing = store->drawing();
    source.file = std::move(store);
  } else {
    const std::string advice =
        concat("raise memory_mb, pack it with: focus-train pack --fasta '", given.fasta, "' -o '",
               std::filesystem::path(given.fasta).stem().string(), ".h5', or ");
    source.file = open_fasta(
        given.fasta, {.held_bases = memory.left(), .advice = advice, .allow_truncated = allow_truncated});
    memory.used_bytes += source.file->held_bases();
  }
  return source;
}

void choose_stretches(Source& source, const std::vector<std::string>& texts,
                      const std::vector<Region>& excluded) {
  const std::vector<Region> held = source.file->held();
  std::vector<Region> wanted = held;
  if (!texts.empty()) {
    wanted.clear();
    for (const Region& region : read_regions(texts, *source.file)) {
      const std::vector<Region> parts = intersect_regions({region}, held);
      if (parts.empty())
        fail<DataError>("region ", format_region(region), " was not packed into '", source.path, "'");
      wanted.insert(wanted.end(), parts.begin(), parts.end());
    }
  }
  for (Region& region : subtract_regions(wanted, excluded)) {
    if (source.drawing == Drawing::windows || region.length() >= 2)
      source.stretches.push_back({std::move(region), {}});
  }
  if (source.stretches.empty())
    fail<DataError>("nothing of '", source.path,
                    "' is left to draw from: the excluded regions cover all of it");
}

}  // namespace

std::string Source::letters(const Stretch& stretch, int64_t begin, int64_t length) const {
  if (stretch.letters.empty()) return file->fetch(stretch.region.name, begin, begin + length);
  return stretch.letters.substr(static_cast<std::size_t>(begin - stretch.region.begin),
                                static_cast<std::size_t>(length));
}

Sources open_sources(const SamplerConfig& config) {
  Memory memory{.limit_bytes = config.memory_mb << 20};
  Sources sources;
  for (const SourceConfig& given : config.sources)
    sources.list.push_back(open_source(given, config.allow_truncated, memory));
  const auto excluded = resolve_exclusions(config.exclude, sources.list);
  int64_t in_files = 0;
  for (std::size_t s = 0; s < sources.list.size(); ++s) {
    Source& source = sources.list[s];
    if (source.file) choose_stretches(source, config.sources[s].regions, excluded[s]);
    for (const Stretch& stretch : source.stretches) {
      sources.num_bases += stretch.region.length();
      if (source.file && !source.file->in_memory()) in_files += stretch.region.length();
    }
  }
  sources.in_memory = in_files <= memory.left();
  if (!sources.in_memory) return sources;
  for (Source& source : sources.list) {
    if (!source.file || source.file->in_memory()) continue;
    for (Stretch& stretch : source.stretches)
      stretch.letters = source.file->fetch(stretch.region.name, stretch.region.begin, stretch.region.end);
  }
  return sources;
}

}  // namespace focus::data

#include "focus/data/input_files.h"

#include "focus/core/error.h"
#include "focus/data/open_sequences.h"

namespace focus::data {

std::vector<NamedPath> fasta_files(const std::string& what, const std::string& path) {
  if (path.empty() || path == "-") return {{what, path}};
  std::vector<NamedPath> out;
  for (const std::filesystem::path& file : sequence_files(path, SequenceKind::either)) {
    out.push_back({what, file});
    for (const char* index : {".fai", ".gzi"})
      out.push_back({concat("index of ", what), file.string() + index});
  }
  return out;
}

std::vector<NamedPath> sampler_files(const std::string& setting, const SamplerConfig& config) {
  std::vector<NamedPath> out;
  const auto add_regions = [&](const std::string& what, const std::vector<std::string>& regions) {
    for (const std::string& region : regions)
      out.push_back({what, region});  // no file has the name of a region that is none
  };
  for (std::size_t i = 0; i < config.sources.size(); ++i) {
    const SourceConfig& source = config.sources[i];
    const std::string at = concat(setting, ".sources.", i);
    const auto fasta = fasta_files(at + ".fasta", source.fasta);
    out.insert(out.end(), fasta.begin(), fasta.end());
    for (const std::filesystem::path& file : sequence_files(source.jsonl, SequenceKind::jsonl))
      out.push_back({at + ".jsonl", file});
    out.push_back({at + ".hdf5", source.hdf5});
    add_regions(at + ".regions", source.regions);
  }
  add_regions(setting + ".exclude", config.exclude);
  return out;
}

}  // namespace focus::data

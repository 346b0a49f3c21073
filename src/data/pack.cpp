#include "focus/data/pack.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <utility>

#include "focus/core/error.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"
#include "focus/data/input_files.h"
#include "focus/data/jsonl.h"
#include "focus/data/letters.h"
#include "focus/data/region.h"
#include "focus/data/sequence_file.h"
#include "store_writer.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

struct RecordLength {
  std::string name;
  int64_t length = 0;
};

/// A source that is read twice: for names and lengths, which regions are checked against, then for letters.
/// Memory: one record of a stream (gzip, JSONL), a few MB of an indexed FASTA file.
class RecordReader {
 public:
  static std::unique_ptr<RecordReader> open(const PackSource& source, bool allow_truncated);
  virtual ~RecordReader() = default;

  /// `alive` is called now and then; it may throw.
  virtual std::vector<RecordLength> scan(const std::function<void()>& alive) = 0;
  /// Calls `take` with consecutive pieces of each of the regions of the source's i-th record, for all i in
  /// turn. DataError when the source is not what it was in scan().
  virtual void read(const std::vector<std::vector<Region>>& by_record,
                    const std::function<void(const Region&, std::string_view)>& take) = 0;
};

constexpr int64_t kPiece = int64_t{4} << 20;

class IndexedReader final : public RecordReader {
 public:
  explicit IndexedReader(std::unique_ptr<SequenceFile> fasta) : fasta_(std::move(fasta)) {}
  std::vector<RecordLength> scan(const std::function<void()>& alive) override {
    alive();
    std::vector<RecordLength> records;
    for (const std::string& name : fasta_->names()) records.push_back({name, fasta_->length(name)});
    return records;
  }
  void read(const std::vector<std::vector<Region>>& by_record,
            const std::function<void(const Region&, std::string_view)>& take) override {
    for (const auto& regions : by_record) {
      for (const Region& region : regions) {
        for (int64_t begin = region.begin; begin < region.end; begin += kPiece)
          take(region, fasta_->fetch(region.name, begin, std::min(region.end, begin + kPiece)));
      }
    }
  }

 private:
  std::unique_ptr<SequenceFile> fasta_;
};

/// Stream is FastaStream or JsonlReader.
template <class Stream, class Record, std::string Record::* letters>
class StreamReader final : public RecordReader {
 public:
  StreamReader(std::string path, std::function<std::unique_ptr<Stream>()> open)
      : path_(std::move(path)), open_(std::move(open)) {}
  std::vector<RecordLength> scan(const std::function<void()>& alive) override {
    const std::unique_ptr<Stream> stream = open_();
    std::vector<RecordLength> records;
    for (Record record; stream->next(record);) {
      alive();
      records.push_back({record.name, static_cast<int64_t>((record.*letters).size())});
    }
    if (records.empty()) fail<DataError>("'", path_, "' holds no sequence");
    lengths_ = records;
    return records;
  }
  void read(const std::vector<std::vector<Region>>& by_record,
            const std::function<void(const Region&, std::string_view)>& take) override {
    const std::unique_ptr<Stream> stream = open_();
    std::size_t i = 0;
    for (Record record; stream->next(record); ++i) {
      const std::string_view all = record.*letters;
      if (i >= lengths_.size() || record.name != lengths_[i].name ||
          static_cast<int64_t>(all.size()) != lengths_[i].length)
        changed();
      for (const Region& region : by_record[i]) {
        for (int64_t begin = region.begin; begin < region.end; begin += kPiece)
          take(region, all.substr(static_cast<std::size_t>(begin),
                                  static_cast<std::size_t>(std::min(kPiece, region.end - begin))));
      }
    }
    if (i != lengths_.size()) changed();
  }

 private:
  [[noreturn]] void changed() const {
    fail<DataError>("'", path_, "' was changed while it was being packed; pack it again");
  }

  std::string path_;
  std::function<std::unique_ptr<Stream>()> open_;
  std::vector<RecordLength> lengths_;
};

std::unique_ptr<RecordReader> RecordReader::open(const PackSource& source, bool allow_truncated) {
  const std::string& path = source.path;
  if (source.jsonl)
    return std::make_unique<StreamReader<JsonlReader, JsonlRecord, &JsonlRecord::text>>(
        path, [path, prefix = source.line_prefix] { return std::make_unique<JsonlReader>(path, prefix); });
  std::string why_not;
  if (auto indexed = index_fasta(path, allow_truncated, why_not))
    return std::make_unique<IndexedReader>(std::move(indexed));
  return std::make_unique<StreamReader<FastaStream, FastaRecord, &FastaRecord::sequence>>(
      path, [path, allow_truncated] { return std::make_unique<FastaStream>(path, allow_truncated); });
}

/// The records of all sources, for regions to be checked against; their letters are read elsewhere.
class RecordTable final : public SequenceFile {
 public:
  explicit RecordTable(const std::string& paths) : SequenceFile(paths) {}
  void add(const RecordLength& record, const PackSource& source) {
    if (contains(record.name))
      fail<DataError>("record name '", record.name, "' of '", source.path,
                      "' occurs twice in what is to be packed; names must be unique",
                      source.jsonl ? " (lines without \"id\" and \"name\" are called line-N)" : "");
    if (source.jsonl && record.length < 2)
      fail<DataError>("document '", record.name, "' of '", source.path,
                      "' has one base; a training sequence needs two or more");
    add_record(record.name, record.length);
  }

 private:
  std::string read(const std::string& name, int64_t, int64_t) const override {
    fail<InternalError>("letters of '", name, "' were asked of a table of names");
  }
};

void check_arguments(const std::vector<PackSource>& sources, const PackOptions& options,
                     const fs::path& output) {
  if (sources.empty()) fail<ConfigError>("nothing to pack: name at least one source");
  std::vector<NamedPath> inputs;
  for (const PackSource& source : sources) {
    if (source.jsonl != sources.front().jsonl)
      fail<ConfigError>("'", sources.front().path, "' and '", source.path,
                        "' are of different kinds: windows are drawn from FASTA, documents from JSONL; pack "
                        "them into two stores");
    const auto files =
        source.jsonl ? std::vector<NamedPath>{{"source", source.path}} : fasta_files("source", source.path);
    inputs.insert(inputs.end(), files.begin(), files.end());
  }
  for (const std::string& region : options.regions) inputs.push_back({"region", region});
  for (const std::string& region : options.exclude) inputs.push_back({"exclude", region});
  require_separate({{"output", output}}, inputs);
  std::error_code ignored;
  if (fs::exists(output, ignored) && !fs::is_regular_file(output, ignored))
    fail<DataError>("cannot write '", output.string(),
                    "': it is a folder, device or pipe; a token store must be a file on disk");
}

std::vector<Region> wanted_stretches(const PackOptions& options, const RecordTable& table, bool documents) {
  const std::vector<Region> asked =
      options.regions.empty() ? table.held() : read_regions(options.regions, table);
  std::vector<Region> stretches = subtract_regions(asked, read_regions(options.exclude, table));
  if (documents) std::erase_if(stretches, [](const Region& stretch) { return stretch.length() < 2; });
  if (stretches.empty())
    fail<DataError>("nothing of ", table.path().string(),
                    " is left to pack: the excluded regions cover all of it");
  return stretches;
}

}  // namespace

PackResult pack(const std::vector<PackSource>& sources, const PackOptions& options, const fs::path& output) {
  check_arguments(sources, options, output);
  StoreWriter writer(output);  // first of all, as reading may take long and the output may be impossible
  const auto tell = [&](int64_t done, int64_t all) {
    if (options.progress) options.progress(done, all);
  };
  std::string paths;
  for (const PackSource& source : sources) paths += (paths.empty() ? "" : ", ") + source.path;
  RecordTable table(paths);
  StoreIndex index;
  std::vector<std::unique_ptr<RecordReader>> readers;
  std::vector<std::map<std::string, std::string>> about;
  std::vector<std::size_t> first_record;
  for (const PackSource& source : sources) {
    readers.push_back(RecordReader::open(source, options.allow_truncated));
    first_record.push_back(index.names.size());
    for (const RecordLength& record : readers.back()->scan([&] { tell(0, 0); })) {
      table.add(record, source);
      index.names.push_back(record.name);
      index.lengths.push_back(record.length);
    }
    about.push_back(source.about);
    about.back()["path"] = source.path;
    about.back()["kind"] = source.jsonl ? "jsonl" : "fasta";
  }
  first_record.push_back(index.names.size());

  // The table of stretches keeps the order asked for, as a sampler's draws depend on it; the letters come in
  // the order of the sources.
  std::unordered_map<std::string, std::size_t> record_of;
  for (std::size_t r = 0; r < index.names.size(); ++r) record_of[index.names[r]] = r;
  std::vector<std::vector<Region>> by_record(index.names.size());
  std::vector<std::vector<std::size_t>> places(index.names.size());
  int64_t total = 0;
  for (const Region& stretch : wanted_stretches(options, table, sources.front().jsonl)) {
    const std::size_t r = record_of.at(stretch.name);
    places[r].push_back(index.record.size());
    by_record[r].push_back(stretch);
    index.record.push_back(static_cast<int64_t>(r));
    index.begin.push_back(stretch.begin);
    index.end.push_back(stretch.end);
    total += stretch.length();
  }
  index.offset.resize(index.record.size());
  int64_t offset = 0;
  for (const auto& of_record : places) {
    for (const std::size_t place : of_record) {
      index.offset[place] = offset;
      offset += index.end[place] - index.begin[place];
    }
  }
  AmbiguityNote ambiguity;
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const std::vector<std::vector<Region>> mine(
        by_record.begin() + static_cast<std::ptrdiff_t>(first_record[s]),
        by_record.begin() + static_cast<std::ptrdiff_t>(first_record[s + 1]));
    const Region* current = nullptr;
    int64_t begin = 0;
    SequenceCounts counts;  // of the stretch
    const auto note = [&] {
      if (current != nullptr) ambiguity.add(current->name, counts);
      counts = {};
    };
    readers[s]->read(mine, [&](const Region& region, std::string_view letters) {
      if (current != &region) {
        note();
        begin = region.begin;
      }
      current = &region;
      clean(letters, CasePolicy::keep, AmbiguousPolicy::mask, region.name, begin);
      begin += static_cast<int64_t>(letters.size());
      counts += count_letters(letters);
      writer.append(letters);
      tell(writer.size(), total);
    });
    note();
  }
  ambiguity.warn();
  FOCUS_CHECK(writer.size() == total, "packed ", writer.size(), " of ", total, " bases");
  writer.finish(index, sources.front().jsonl ? Drawing::documents : Drawing::windows, options.about, about);
  return {static_cast<int64_t>(index.names.size()), static_cast<int64_t>(index.record.size()), total};
}

}  // namespace focus::data

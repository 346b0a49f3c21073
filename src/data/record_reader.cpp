#include "record_reader.h"

#include <algorithm>
#include <utility>

#include "focus/core/error.h"
#include "focus/data/fasta.h"
#include "focus/data/fasta_stream.h"
#include "focus/data/jsonl.h"

namespace focus::data {
namespace {

constexpr int64_t kPiece = int64_t{4} << 20;

class IndexedReader final : public RecordReader {
 public:
  explicit IndexedReader(const std::string& path) : fasta_(path) {}
  std::vector<RecordLength> scan(const std::function<void()>& alive) override {
    alive();
    std::vector<RecordLength> records;
    for (const std::string& name : fasta_.names()) records.push_back({name, fasta_.length(name)});
    return records;
  }
  void read(const std::vector<std::vector<Region>>& by_record, const std::function<void(const Region&, std::string_view)>& take) override {
    for (const auto& regions : by_record) {
      for (const Region& region : regions) {
        for (int64_t begin = region.begin; begin < region.end; begin += kPiece)
          take(region, fasta_.fetch(region.name, begin, std::min(region.end, begin + kPiece)));
      }
    }
  }

 private:
  FastaFile fasta_;
};

/// Stream is FastaStream or JsonlReader.
template <class Stream, class Record, std::string Record::*letters>
class StreamReader final : public RecordReader {
 public:
  explicit StreamReader(std::string path) : path_(std::move(path)) {}
  std::vector<RecordLength> scan(const std::function<void()>& alive) override {
    Stream stream(path_);
    std::vector<RecordLength> records;
    for (Record record; stream.next(record);) {
      alive();
      records.push_back({record.name, static_cast<int64_t>((record.*letters).size())});
    }
    if (records.empty()) fail<DataError>("'", path_, "' holds no sequence");
    lengths_ = records;
    return records;
  }
  void read(const std::vector<std::vector<Region>>& by_record, const std::function<void(const Region&, std::string_view)>& take) override {
    Stream stream(path_);
    std::size_t i = 0;
    for (Record record; stream.next(record); ++i) {
      const std::string_view all = record.*letters;
      if (i >= lengths_.size() || record.name != lengths_[i].name || static_cast<int64_t>(all.size()) != lengths_[i].length) changed();
      for (const Region& region : by_record[i]) {
        for (int64_t begin = region.begin; begin < region.end; begin += kPiece)
          take(region, all.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(kPiece, region.end - begin))));
      }
    }
    if (i != lengths_.size()) changed();
  }

 private:
  [[noreturn]] void changed() const { fail<DataError>("'", path_, "' was changed while it was being packed; pack it again"); }

  std::string path_;
  std::vector<RecordLength> lengths_;
};

}  // namespace

std::unique_ptr<RecordReader> RecordReader::open(const PackSource& source) {
  if (source.jsonl) return std::make_unique<StreamReader<JsonlReader, JsonlRecord, &JsonlRecord::text>>(source.path);
  if (is_plain_gzip(source.path)) return std::make_unique<StreamReader<FastaStream, FastaRecord, &FastaRecord::sequence>>(source.path);
  return std::make_unique<IndexedReader>(source.path);
}

}  // namespace focus::data

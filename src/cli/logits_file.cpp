#include "logits_file.h"

#include <utility>

namespace focus::cli {

LogitsFile::LogitsFile(std::string path, std::map<std::string, std::string> about, int64_t vocabulary,
                       const std::optional<std::vector<Record>>& records)
    : path_(std::move(path)), about_(std::move(about)), vocabulary_(vocabulary) {
  if (!records) {
    rows_.emplace(path_ + ".rows");
    return;
  }
  std::vector<formats::TensorView> tensors;
  for (const Record& record : *records) tensors.push_back(view(record));
  stream_.emplace(path_, tensors, about_);
}

formats::TensorView LogitsFile::view(const Record& record) const {
  return {record.name, formats::DType::float32, {record.length, vocabulary_}, nullptr};
}

void LogitsFile::begin(const Record& record) {
  if (rows_) tensors_.push_back(view(record));
}

void LogitsFile::write(const at::Tensor& rows) {
  if (rows_) return rows_->write(rows.const_data_ptr(), rows.nbytes());
  stream_->write(rows.const_data_ptr(), rows.nbytes());
}

void LogitsFile::commit() {
  if (stream_) return stream_->commit();
  rows_->close();
  const MappedFile mapped(rows_->temporary());
  const std::byte* data = mapped.data();
  for (formats::TensorView& tensor : tensors_) {
    tensor.data = data;
    data += tensor.num_bytes();
  }
  formats::write_safetensors(path_, tensors_, about_);
}

}  // namespace focus::cli

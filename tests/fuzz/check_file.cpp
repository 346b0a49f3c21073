#include "check_file.h"

#include <sanitizer/asan_interface.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "focus/core/error.h"
#include "focus/formats/digest.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"
#include "heap_meter.h"

namespace focus::formats::fuzz {
namespace {

[[noreturn]] void finding(const std::string& what) {
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

using Bytes = std::span<const std::byte>;

bool lies_in(Bytes outer, Bytes inner) {
  return std::less_equal<>()(outer.data(), inner.data()) &&
         std::less_equal<>()(inner.data() + inner.size(), outer.data() + outer.size());
}

Bytes bytes_of(const TensorView& view) { return {view.data, static_cast<std::size_t>(view.num_bytes())}; }

std::vector<Bytes> contents_of(const TensorFile& file) {
  std::vector<Bytes> all;
  for (const TensorView& view : file.tensors()) all.push_back(bytes_of(view));
  for (const OpaqueEntry& entry : file.opaque()) all.push_back(entry.content);
  return all;
}

/// Every byte may be read, and what is not in the input is no more than the input.
void check_views(const TensorFile& file, const std::vector<Bytes>& pieces) {
  std::set<std::string> names;
  for (const TensorView& view : file.tensors()) {
    if (view.num_elements() < 0 || view.num_bytes() < 0) finding("a negative size");
    if (!names.insert(view.name).second || file.find(view.name) != &view) finding("two entries of one name");
    if (pieces.size() == 1 && view.num_bytes() > 0 && !view.is_aligned())
      finding("a misaligned tensor of a single file");
  }
  for (const OpaqueEntry& entry : file.opaque()) {
    if (!names.insert(entry.name).second) finding("two entries of one name");
  }
  std::size_t total = 0, owned = 0;
  for (const Bytes& piece : pieces) total += piece.size();
  std::set<const std::byte*> counted;
  for (const Bytes& content : contents_of(file)) {
    if (content.empty()) continue;
    if (__asan_region_is_poisoned(const_cast<std::byte*>(content.data()), content.size()) != nullptr)
      finding("a view of memory that is not its own");
    bool inside = false;
    for (const Bytes& piece : pieces) inside = inside || lies_in(piece, content);
    if (!inside && counted.insert(content.data()).second) owned += content.size();
  }
  if (owned > total)
    finding("copies of " + std::to_string(owned) + " bytes from an input of " + std::to_string(total));
}

void check_same(const TensorFile& a, const TensorFile& b) {
  if (a.tensors().size() != b.tensors().size() || a.opaque_entries() != b.opaque_entries() ||
      a.metadata() != b.metadata() || a.format() != b.format()) {
    finding("the pieces give another file than the whole");
  }
  for (std::size_t i = 0; i < a.tensors().size(); ++i) {
    const TensorView &left = a.tensors()[i], &right = b.tensors()[i];
    if (left.name != right.name || left.dtype != right.dtype || left.shape != right.shape)
      finding("the pieces give another tensor than the whole");
  }
  const std::vector<Bytes> left = contents_of(a), right = contents_of(b);
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i].size() != right[i].size() ||
        (!left[i].empty() && std::memcmp(left[i].data(), right[i].data(), left[i].size()) != 0)) {
      finding("the pieces give other bytes than the whole");
    }
  }
}

/// Written and read back, the file is the same, unless the format cannot hold it.
void check_round_trip(const TensorFile& file) {
  static const std::filesystem::path path = "/dev/shm/focus-fuzz-" + std::to_string(::getpid());
  const auto check = [&](const auto& write) {
    try {
      write();
      const auto again = TensorFile::open(path);
      if (digest(*again) != digest(file) || fingerprint(*again) != fingerprint(file))
        finding("written and read back, it is another file");
    } catch (const DataError&) {
    }
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  };
  check([&] { write_torch_archive(path, file.tensors(), file.opaque()); });
  check([&] { write_safetensors(path, file.tensors(), file.metadata(), file.opaque()); });
}

struct Outcome {
  std::shared_ptr<TensorFile> file;
  std::string refusal;
};

Outcome read(const std::vector<Bytes>& pieces, const Reader& reader) {
  Outcome outcome;
  try {
    outcome.file = reader(std::make_unique<FileBytes>(pieces, "input", "advice"));
  } catch (const WeightsError& error) {
    outcome.refusal = error.what();
    if (outcome.refusal.empty() || outcome.refusal.size() > 4096)
      finding("a message of " + std::to_string(outcome.refusal.size()) + " bytes");
    for (const char c : outcome.refusal) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        finding("a control character in a message: " + outcome.refusal);
    }
  }
  return outcome;
}

}  // namespace

void check_reader(std::span<const std::byte> input, const Reader& reader) {
  std::uint64_t hash = 14695981039346656037U;
  for (const std::byte b : input) hash = (hash ^ static_cast<std::uint64_t>(b)) * 1099511628211U;

  const HeapMeter meter;
  const Outcome whole = read({input}, reader);
  meter.check(input.size());
  if (whole.file) check_views(*whole.file, {input});

  // Each piece in memory of its own, so that reading across a boundary is seen.
  std::size_t first = hash % (input.size() + 1), second = (hash >> 24) % (input.size() + 1);
  if (first > second) std::swap(first, second);
  const std::vector<std::byte> a(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(first));
  const std::vector<std::byte> b(input.begin() + static_cast<std::ptrdiff_t>(first),
                                 input.begin() + static_cast<std::ptrdiff_t>(second));
  const std::vector<std::byte> c(input.begin() + static_cast<std::ptrdiff_t>(second), input.end());
  const std::vector<Bytes> pieces = {a, b, c};
  const Outcome cut = read(pieces, reader);
  if (cut.file) check_views(*cut.file, pieces);
  if (whole.file && cut.file) {
    check_same(*whole.file, *cut.file);
  } else if (whole.file || cut.file) {
    // Which tensors need a copy differs, so only one of the two may exceed the limit on copies.
    const std::string& refusal = whole.file ? cut.refusal : whole.refusal;
    if (refusal.find("memory of its own") == std::string::npos)
      finding("whole and pieces do not agree: " + refusal);
  }
  if (whole.file && hash >> 56 < 16) check_round_trip(*whole.file);
}

}  // namespace focus::formats::fuzz

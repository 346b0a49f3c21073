// Exact keys and values of k-mers that have left a layer, in few bits and out of the way. Legend: B batch, G
// key/value heads, n bases of a k-mer, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <sys/uio.h>

#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/compress/far/config.h"
#include "focus/compress/far/recently_used.h"
#include "focus/ops/attention.h"

namespace focus::compress {

/// Keys and values of one k-mer, [B, G, n, E] each.
struct FarKmer {
  at::Tensor k, v;
};

/// A file without a name, which ends with the last that refers to it: no process that was killed leaves one.
/// Written at its end alone; what is given up of it takes no room on the disk.
class UnnamedFile {
 public:
  /// DataError: a folder where no file can be made.
  explicit UnnamedFile(const std::string& folder);
  ~UnnamedFile();
  UnnamedFile(const UnnamedFile&) = delete;
  UnnamedFile& operator=(const UnnamedFile&) = delete;
  /// The parts one after the other, in one write. Where they were put. DataError: the disk is full; the file
  /// is as it was.
  int64_t append(std::vector<iovec> parts);
  int64_t size() const { return size_; }
  void read(int64_t offset, void* bytes, int64_t count) const;
  /// Gives the space of these bytes back.
  void forget(int64_t offset, int64_t count);

 private:
  [[noreturn]] void refuse(const char* what, int error) const;
  std::string folder_;
  int file_ = -1;
  int64_t size_ = 0;
};

/// Of one layer. K-mers are appended in order, rounded once, and never changed: copies of a store share them.
/// With `place: host` and a card they go to pinned memory and come back in the order of the card's stream,
/// and the host waits for neither; with `place: file` it waits for both.
class FarStore {
 public:
  explicit FarStore(const FarConfig& config) : config_(config) {}
  /// K-mers from number end() on, written together. ConfigError: they carry a gradient and the store rounds
  /// to integers.
  void append(const std::vector<FarKmer>& kmers);
  /// K-mer of [first(), end()) that was not given up, on `like`'s device, codes as they are, floats in its
  /// type. What lies there like that is read in place.
  ops::MemoryPart read(int64_t kmer, const at::Tensor& like);
  /// Those that come later too.
  void drop_before(int64_t kmer);
  /// Gives up the k-mers that are not held. Null: nothing.
  void drop_unless(const HeldKmers& held);
  int64_t first() const { return first_; }
  int64_t end() const { return first_ + static_cast<int64_t>(kmers_.size() - given_up_); }

  /// Of what is stored, and of what is held ready.
  int64_t num_bytes() const { return bytes_; }
  int64_t ready_bytes() const;
  /// Of a k-mer of `bases`.
  static int64_t kmer_bytes(FarStoreType store, int64_t bases, int64_t kv_heads, int64_t head_dim,
                            at::ScalarType model_dtype);
  void detach();
  /// The same k-mers, none of them ready.
  FarStore copy() const;
  /// Under names that begin with "far.".
  void save(cache::TensorMap& out) const;
  void load(const cache::TensorMap& saved, const at::Device& device);

  /// What a store would make of a k-mer.
  static ops::MemoryPart rounded(FarStoreType store, const FarKmer& kmer);

 private:
  /// A part of a file, which copies of a store share.
  struct Extent {
    std::shared_ptr<UnnamedFile> file;
    int64_t begin = 0, end = 0;
    ~Extent() { file->forget(begin, end - begin); }
  };
  struct Stored {
    at::Tensor packed = {};                             // undefined where the file has it
    std::shared_ptr<const ops::MemoryPart> views = {};  // of `packed`, where this lies beside the model
    std::shared_ptr<Extent> extent = {};                // of the file, around this k-mer
    int64_t offset = 0, bases = 0, bytes = 0;
    bool given_up() const { return bytes == 0; }
  };
  void forget(Stored& stored);
  /// After some were given up.
  void close_up();
  void put(std::vector<at::Tensor> packed, const std::vector<int64_t>& bases);
  /// To the file, and where in it.
  int64_t write(const std::vector<at::Tensor>& packed);
  /// Of the bytes at the end of what was written before.
  std::shared_ptr<Extent> extent(int64_t begin, int64_t end) const;
  /// A k-mer held ready, and what was read of the file if these are views of it.
  struct Ready {
    int64_t kmer = -1;
    at::Tensor packed = {};
    ops::MemoryPart entries = {};
  };
  std::shared_ptr<const ops::MemoryPart> views(const at::Tensor& packed, int64_t bases);
  /// `room`: of another k-mer, where this one may be read to if it fits.
  at::Tensor packed(const Stored& stored, const at::Tensor& like, const at::Tensor& room) const;

  FarConfig config_;
  std::vector<Stored> kmers_;  // the first `given_up_` of them are gone, k-mer `first_` comes next; of the
                               // rest some may be
  std::size_t given_up_ = 0;
  int64_t first_ = 0, bytes_ = 0;
  int64_t kept_from_ = 0;  // drop_before()'s
  int64_t batch_ = 0, heads_ = 0, dim_ = 0;
  at::ScalarType type_ = at::kFloat;  // of floats that are packed
  at::Device from_ = at::kCPU;        // where k-mers came from
  std::shared_ptr<UnnamedFile> file_;
  HeldKmers held_;  // what drop_unless() was given last, and up to which k-mer that is settled
  int64_t settled_ = 0;
  at::Tensor first_rows_;   // zeros, int32: all keys of a k-mer in codes have its first row of scales
  std::list<Ready> ready_;  // the one fetched last in front
};

}  // namespace focus::compress

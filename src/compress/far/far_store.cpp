#include "far_store.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "focus/ops/quantised.h"

namespace focus::compress {
namespace {

using at::Tensor;

// What of a file is given back at a time. Few large ones: objects that stay, one for each k-mer written, lie
// among larger pieces that are freed, and may keep these apart.
constexpr int64_t kExtentBytes = int64_t{4} << 20;
constexpr std::size_t kLoadedAtOnce = 16;  // k-mers of a saved stream
constexpr int64_t kLayout = 2;             // of the bytes of a packed k-mer, in saved streams

int64_t bits_of(FarStoreType store) {
  return store == FarStoreType::int8 ? 8 : store == FarStoreType::int4 ? 4 : 0;
}

Tensor as_bytes(const Tensor& t) { return t.contiguous().flatten(1).view(at::kByte); }

/// Floats as [2, B, G, n, E], codes as bytes [B, count], in an order in which rows and scales of whole
/// registers of channels lie on their boundaries.
Tensor pack(FarStoreType store, const FarKmer& kmer) {
  const int64_t bits = bits_of(store);
  if (bits == 0) {
    const Tensor both = at::stack({kmer.k, kmer.v});
    return store == FarStoreType::bf16 ? both.to(at::kBFloat16) : both;
  }
  if (at::GradMode::is_enabled() && (kmer.k.requires_grad() || kmer.v.requires_grad()))
    fail<ConfigError>("far.store ", bits == 8 ? "int8" : "int4",
                      " has no gradient: train with far.store model or bf16, and set it when the adapter is "
                      "used");
  const ops::QuantisedTensor k = ops::quantise(kmer.k, bits, kmer.k.size(2)),
                             v = ops::quantise(kmer.v, bits, 0);
  return at::cat({as_bytes(k.low), as_bytes(k.step), as_bytes(k.codes), as_bytes(v.codes), as_bytes(v.low),
                  as_bytes(v.step)},
                 1);
}

/// Views of what pack() made. `rows`: zeros, int32, for as many bases at least.
ops::MemoryPart views_of(FarStoreType store, const Tensor& packed, int64_t bases, int64_t heads, int64_t dim,
                         const Tensor& rows) {
  const int64_t bits = bits_of(store);
  if (bits == 0) return {packed.select(0, 0), packed.select(0, 1)};
  int64_t at = 0;
  const auto next = [&](at::IntArrayRef shape, at::ScalarType as) {
    const int64_t count = shape[0] * shape[1] * shape[2] * static_cast<int64_t>(at::elementSize(as));
    const Tensor bytes = packed.narrow(1, at, count);
    at += count;
    return bytes.view(as).view({packed.size(0), shape[0], shape[1], shape[2]});
  };
  ops::QuantisedTensor k, v;
  k.bits = v.bits = bits;
  k.low = next({heads, 1, dim}, at::kHalf);
  k.step = next({heads, 1, dim}, at::kHalf);
  k.row_of = rows.narrow(0, 0, bases);
  k.codes = next({heads, bases, dim * bits / 8}, at::kByte);
  v.codes = next({heads, bases, dim * bits / 8}, at::kByte);
  v.low = next({heads, bases, 1}, at::kHalf);
  v.step = next({heads, bases, 1}, at::kHalf);
  return {{}, {}, {}, k, v};
}

/// Codes as they are, floats in this type.
ops::MemoryPart in_type(ops::MemoryPart part, at::ScalarType type) {
  if (!part.in_codes()) part.k = part.k.to(type), part.v = part.v.to(type);
  return part;
}

Tensor zero_rows(int64_t count, const Tensor& like) {
  return at::zeros({count}, like.options().dtype(at::kInt).requires_grad(false));
}

int64_t bytes_of(const ops::MemoryPart& part) {
  int64_t bytes = 0;
  for (const Tensor* t : {&part.k, &part.v, &part.k_codes.codes, &part.k_codes.low, &part.k_codes.step,
                          &part.v_codes.codes, &part.v_codes.low, &part.v_codes.step})
    bytes += t->defined() ? static_cast<int64_t>(t->nbytes()) : 0;
  return bytes;
}

}  // namespace

UnnamedFile::UnnamedFile(const std::string& folder)
    : folder_(folder.empty() ? std::filesystem::temp_directory_path().string() : folder) {
  file_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
    // A file system that makes no files without a name: take its name away at once.
    std::string name = folder_ + "/focus-far-XXXXXX";
    file_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (file_ >= 0) ::unlink(name.c_str());
  }
  if (file_ < 0) refuse("cannot make a file", errno);
}

UnnamedFile::~UnnamedFile() { ::close(file_); }

void UnnamedFile::refuse(const char* what, int error) const {
  fail<DataError>("far.folder '", folder_, "': ", what, " for far memory: ", std::strerror(error),
                  "; set far.folder to a folder with room, or far.keep or far.store to hold less");
}

int64_t UnnamedFile::append(std::vector<iovec> parts) {
  const int64_t offset = size_;
  int64_t end = offset;
  for (std::size_t next = 0; next < parts.size();) {
    const auto most = std::min<std::size_t>(parts.size() - next, IOV_MAX);
    const ssize_t now = ::pwritev(file_, &parts[next], static_cast<int>(most), end);
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) {
      const int error = now < 0 ? errno : ENOSPC;
      forget(offset, end - offset);
      refuse("cannot write", error);
    }
    end += now;
    // What was written in part goes on behind that part.
    for (auto left = static_cast<std::size_t>(now); next < parts.size() && left > 0;) {
      iovec& part = parts[next];
      const std::size_t done = std::min(left, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + done;
      part.iov_len -= done;
      left -= done;
      if (part.iov_len == 0) ++next;
    }
  }
  size_ = end;
  return offset;
}

void UnnamedFile::read(int64_t offset, void* bytes, int64_t count) const {
  for (int64_t done = 0; done < count;) {
    const ssize_t now = ::pread(file_, static_cast<char*>(bytes) + done,
                                static_cast<std::size_t>(count - done), offset + done);
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) refuse("cannot read", now < 0 ? errno : EIO);
    done += now;
  }
}

void UnnamedFile::forget(int64_t offset, int64_t count) {
  // Where a file system cannot, the space comes back with the file.
  ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int64_t FarStore::kmer_bytes(FarStoreType store, int64_t bases, int64_t kv_heads, int64_t head_dim,
                             at::ScalarType model_dtype) {
  const int64_t bits = bits_of(store);
  if (bits > 0) return kv_heads * (2 * bases * head_dim * bits / 8 + 4 * head_dim + 4 * bases);
  const at::ScalarType type = store == FarStoreType::bf16 ? at::kBFloat16 : model_dtype;
  return kv_heads * 2 * bases * head_dim * static_cast<int64_t>(at::elementSize(type));
}

ops::MemoryPart FarStore::rounded(FarStoreType store, const FarKmer& kmer) {
  if (store == FarStoreType::model) return {kmer.k, kmer.v};
  const int64_t bases = kmer.k.size(2);
  return in_type(
      views_of(store, pack(store, kmer), bases, kmer.k.size(1), kmer.k.size(3), zero_rows(bases, kmer.k)),
      kmer.k.scalar_type());
}

void FarStore::append(const std::vector<FarKmer>& kmers) {
  std::vector<Tensor> packed;
  std::vector<int64_t> bases;
  for (const FarKmer& kmer : kmers) {
    batch_ = kmer.k.size(0), heads_ = kmer.k.size(1), dim_ = kmer.k.size(3);
    packed.push_back(pack(config_.store, kmer));
    bases.push_back(kmer.k.size(2));
  }
  put(std::move(packed), bases);
  drop_before(kept_from_);
}

void FarStore::put(std::vector<Tensor> packed, const std::vector<int64_t>& bases) {
  if (packed.empty()) return;
  type_ = packed[0].scalar_type();
  from_ = packed[0].device();
  int64_t offset = config_.place == FarPlace::file ? write(packed) : 0;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    Tensor& own = packed[i];
    Stored stored{.offset = offset, .bases = bases[i], .bytes = static_cast<int64_t>(own.nbytes())};
    if (config_.place == FarPlace::file) {
      offset += stored.bytes;
      stored.extent = extent(stored.offset, offset);
    } else if (config_.place == FarPlace::host && !own.is_cpu() && !own.requires_grad()) {
      stored.packed = at::empty(own.sizes(), own.options().device(at::kCPU).pinned_memory(true));
      stored.packed.copy_(own, /*non_blocking=*/true);
    } else {
      stored.packed = config_.place == FarPlace::host ? own.to(at::kCPU) : std::move(own);
    }
    if (config_.place == FarPlace::model) stored.views = views(stored.packed, stored.bases);
    bytes_ += stored.bytes;
    kmers_.push_back(std::move(stored));
  }
}

int64_t FarStore::write(const std::vector<Tensor>& packed) {
  std::vector<Tensor> host;
  std::vector<iovec> parts;
  for (const Tensor& own : packed) {
    if (own.requires_grad())
      fail<ConfigError>("far.place 'file' has no gradient: train with far.place model or host");
    host.push_back(ops::to_host(own).contiguous());
    parts.push_back({host.back().mutable_data_ptr(), host.back().nbytes()});
  }
  if (file_ == nullptr) file_ = std::make_shared<UnnamedFile>(config_.folder);
  return file_->append(std::move(parts));
}

std::shared_ptr<FarStore::Extent> FarStore::extent(int64_t begin, int64_t end) const {
  const std::shared_ptr<Extent> newest = kmers_.empty() ? nullptr : kmers_.back().extent;
  // Where age decides, neighbours go together.
  const bool goes_on = newest && newest->end == begin && newest->end - newest->begin < kExtentBytes &&
                       !config_.evicts_by_use();
  if (!goes_on) return std::make_shared<Extent>(file_, begin, end);
  newest->end = end;
  return newest;
}

Tensor FarStore::packed(const Stored& stored, const Tensor& like, const Tensor& room) const {
  if (stored.packed.defined()) return stored.packed.to(like.device(), /*non_blocking=*/true);
  const std::vector<int64_t> shape = bits_of(config_.store) > 0
                                         ? std::vector{batch_, stored.bytes / batch_}
                                         : std::vector{int64_t{2}, batch_, heads_, stored.bases, dim_};
  // Rooms are shared by no one else: else another's entries would change.
  const bool fits = room.defined() && room.is_cpu() && room.sizes() == at::IntArrayRef(shape) &&
                    room.scalar_type() == type_ && room.storage().use_count() == 1;
  const Tensor host = fits ? room : at::empty(shape, type_);
  file_->read(stored.offset, host.mutable_data_ptr(), stored.bytes);
  return ops::from_host(host, like.device());
}

std::shared_ptr<const ops::MemoryPart> FarStore::views(const Tensor& packed, int64_t bases) {
  if (!first_rows_.defined() || first_rows_.size(0) < bases || first_rows_.device() != packed.device())
    first_rows_ = zero_rows(bases, packed);
  return std::make_shared<const ops::MemoryPart>(
      views_of(config_.store, packed, bases, heads_, dim_, first_rows_));
}

ops::MemoryPart FarStore::read(int64_t kmer, const Tensor& like) {
  FOCUS_CHECK(kmer >= first_ && kmer < end(), "k-mer ", kmer, " of ", first_, "..", end());
  const Stored& stored = kmers_[given_up_ + static_cast<std::size_t>(kmer - first_)];
  FOCUS_CHECK(!stored.given_up(), "k-mer ", kmer, " was given up");
  const bool beside = config_.place == FarPlace::model;
  if (beside && (bits_of(config_.store) > 0 || type_ == like.scalar_type())) return *stored.views;
  const auto make = [&](Ready& slot) {
    slot.entries = {};
    const Tensor now = beside ? Tensor() : packed(stored, like, slot.packed);
    slot.entries = in_type(beside ? *stored.views : *views(now, stored.bases), like.scalar_type());
    const Tensor& k = slot.entries.in_codes() ? slot.entries.k_codes.codes : slot.entries.k;
    slot.packed = config_.place == FarPlace::file && k.is_alias_of(now) ? now : Tensor();
  };
  if (config_.hot == 0) {
    Ready once;
    make(once);
    return once.entries;
  }
  const auto found =
      std::find_if(ready_.begin(), ready_.end(), [&](const Ready& slot) { return slot.kmer == kmer; });
  if (found != ready_.end()) {
    ready_.splice(ready_.begin(), ready_, found);
    return ready_.front().entries;
  }
  // The slot fetched longest ago goes, its memory stays: new memory for every k-mer fetched would lie among
  // the larger pieces of other work and keep them apart.
  if (static_cast<int64_t>(ready_.size()) < config_.hot) {
    ready_.emplace_front();
  } else {
    ready_.splice(ready_.begin(), ready_, std::prev(ready_.end()));
  }
  ready_.front().kmer = -1;  // until it is there
  make(ready_.front());
  ready_.front().kmer = kmer;
  return ready_.front().entries;
}

void FarStore::forget(Stored& stored) {
  bytes_ -= stored.bytes;
  stored = {};
}

void FarStore::drop_before(int64_t kmer) {
  kept_from_ = std::max(kept_from_, kmer);
  if (kmer <= first_) return;
  for (std::size_t i = given_up_; i < kmers_.size() && first_ + static_cast<int64_t>(i - given_up_) < kmer;
       ++i)
    forget(kmers_[i]);
  close_up();
}

void FarStore::drop_unless(const HeldKmers& held) {
  if (!held) return;
  const int64_t from = held == held_ ? settled_ : first_,
                to = std::min(end(), static_cast<int64_t>(held->size()));
  held_ = held;
  settled_ = to;
  bool any = false;
  for (int64_t kmer = std::max(from, first_); kmer < to; ++kmer) {
    if ((*held)[static_cast<std::size_t>(kmer)]) continue;
    forget(kmers_[given_up_ + static_cast<std::size_t>(kmer - first_)]);
    any = true;
  }
  if (any) close_up();
}

void FarStore::close_up() {
  std::erase_if(ready_, [&](const Ready& slot) {
    return slot.kmer < first_ || kmers_[given_up_ + static_cast<std::size_t>(slot.kmer - first_)].given_up();
  });
  for (; given_up_ < kmers_.size() && kmers_[given_up_].given_up(); ++given_up_) ++first_;
  if (given_up_ > kmers_.size() / 2) {
    kmers_.erase(kmers_.begin(), kmers_.begin() + static_cast<std::ptrdiff_t>(given_up_));
    given_up_ = 0;
  }
}

int64_t FarStore::ready_bytes() const {
  int64_t total = 0;
  for (const Ready& slot : ready_) total += bytes_of(slot.entries);
  return total;
}

FarStore FarStore::copy() const {
  FarStore out = *this;
  out.ready_.clear();
  return out;
}

void FarStore::detach() {
  for (Stored& stored : kmers_) {
    if (!stored.packed.defined()) continue;
    stored.packed = stored.packed.detach();
    if (config_.place == FarPlace::model) stored.views = views(stored.packed, stored.bases);
  }
  ready_.clear();
}

void FarStore::save(cache::TensorMap& out) const {
  if (end() == 0) return;
  if (config_.place == FarPlace::host) ops::wait_for(from_);
  std::vector<Tensor> parts = {at::empty({0}, at::kByte)};  // all may be given up
  std::vector<int64_t> bases;
  for (std::size_t i = given_up_; i < kmers_.size(); ++i) {
    const Stored& stored = kmers_[i];
    bases.push_back(stored.bases);
    if (stored.given_up()) continue;
    const Tensor host =
        stored.packed.defined() ? ops::to_host(stored.packed) : packed(stored, at::empty({0}), {});
    parts.push_back(host.contiguous().flatten().view(at::kByte));
  }
  out.emplace("far.store", at::cat(parts));
  out.emplace("far.bases", at::tensor(bases, at::kLong));
  out.emplace("far.shape", at::tensor({first_, static_cast<int64_t>(config_.store),
                                       static_cast<int64_t>(type_), batch_, heads_, dim_, kLayout},
                                      at::kLong));
}

void FarStore::load(const cache::TensorMap& saved, const at::Device& device) {
  *this = FarStore(config_);
  if (!saved.contains("far.shape")) return;
  const Tensor shape = cache::loaded_tensor(saved, "far.shape", at::kCPU),
               bases = cache::loaded_tensor(saved, "far.bases", at::kCPU),
               bytes = cache::loaded_tensor(saved, "far.store", at::kCPU);
  const auto number = [&](int64_t i) { return shape[i].item<int64_t>(); };
  if (shape.numel() == 6 || (shape.numel() == 7 && number(6) != kLayout))
    fail<CheckpointError>(
        "a saved stream holds its far memory in the order of another version; stream the sequence again");
  if (shape.numel() != 7 || bases.dim() != 1 || bytes.dim() != 1)
    fail<CheckpointError>("a saved stream state does not belong to a far memory");
  if (number(1) != static_cast<int64_t>(config_.store))
    fail<CheckpointError>(
        "a saved stream holds its far memory in another precision than this one is configured for: set "
        "far.store to what the stream was made with");
  first_ = number(0);
  batch_ = number(3), heads_ = number(4), dim_ = number(5);
  const auto type = static_cast<at::ScalarType>(number(2));
  int64_t at = 0;
  std::vector<Tensor> packed;
  std::vector<int64_t> sizes;
  const auto put_all = [&] {
    put(std::move(packed), sizes);
    packed.clear(), sizes.clear();
  };
  for (int64_t i = 0; i < bases.size(0); ++i) {
    const int64_t n = bases[i].item<int64_t>();
    if (n == 0) {
      put_all();
      kmers_.emplace_back();  // given up
      continue;
    }
    const int64_t count = batch_ * kmer_bytes(config_.store, n, heads_, dim_, type);
    if (count > bytes.size(0) - at) fail<CheckpointError>("a saved stream's far memory is incomplete");
    const Tensor part = bytes.narrow(0, at, count).clone().view(type);
    packed.push_back(
        (bits_of(config_.store) > 0 ? part.view({batch_, -1}) : part.view({2, batch_, heads_, n, dim_}))
            .to(device));
    sizes.push_back(n);
    if (packed.size() == kLoadedAtOnce) put_all();
    at += count;
  }
  put_all();
}

}  // namespace focus::compress

#include "focus/compress/tables/packed_bases.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr int64_t kStep = 4096;  // packed letters grow by this many bytes

}  // namespace

Tensor base_codes(const Tensor& tokens_BL, const model::Vocabulary& vocabulary) {
  Tensor codes = at::full(tokens_BL.sizes(), kUnknownBase, tokens_BL.options().dtype(at::kByte));
  for (int64_t base = 0; base < 4; ++base) {
    codes.masked_fill_(tokens_BL.eq(vocabulary.bases[static_cast<std::size_t>(base)]), base);
    // A lowercase letter that is a token of its own is the same base.
    const int32_t lower = vocabulary.token_of_byte[static_cast<std::size_t>("acgt"[base])];
    if (lower != model::Vocabulary::kNone) codes.masked_fill_(tokens_BL.eq(lower), base);
  }
  return codes;
}

int64_t PackedBases::bytes_of(int64_t batch, int64_t size) {
  return batch * ((size + 1) / 2 + kStep - 1) / kStep * kStep;
}

void PackedBases::append(const Tensor& codes_BN) {
  const int64_t batch = codes_BN.size(0), count = codes_BN.size(1), needed = bytes_of(1, size_ + count);
  if (!bytes_.defined() || bytes_.size(1) < needed) {
    Tensor larger = at::zeros({batch, needed}, codes_BN.options());
    if (bytes_.defined()) larger.narrow(1, 0, bytes_.size(1)).copy_(bytes_);
    bytes_ = larger;
  }
  // The first letter may be the second of its byte, and the last the first of its.
  const int64_t begun = std::min(size_ % 2, count), pairs = (count - begun) / 2,
                left = count - begun - 2 * pairs;
  const int64_t byte = size_ / 2;
  const auto high = [](const Tensor& codes) { return codes.bitwise_left_shift(4); };
  if (begun > 0) {
    const Tensor shared = bytes_.narrow(1, byte, 1);
    shared.bitwise_and_(15).bitwise_or_(high(codes_BN.narrow(1, 0, 1)));
  }
  if (pairs > 0) {
    const Tensor two = codes_BN.narrow(1, begun, 2 * pairs).unflatten(1, {pairs, 2});
    bytes_.narrow(1, byte + begun, pairs).copy_(two.select(2, 0).bitwise_or(high(two.select(2, 1))));
  }
  if (left > 0) bytes_.narrow(1, byte + begun + pairs, 1).copy_(codes_BN.narrow(1, count - 1, 1));
  size_ += count;
}

Tensor PackedBases::codes(int64_t begin, int64_t end) const {
  FOCUS_CHECK(end <= size_ && begin <= end, "letters ", begin, "..", end, " of ", size_);
  const int64_t first = std::clamp<int64_t>(begin, 0, std::max<int64_t>(end, 0)) / 2 * 2;
  const int64_t known = std::max<int64_t>(end, 0) - first;
  const Tensor bytes = bytes_.narrow(1, first / 2, (known + 1) / 2);
  const Tensor letters = at::stack({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, 2).flatten(1);
  const int64_t skip = std::max<int64_t>(begin, 0) - first;
  if (begin >= 0) return letters.narrow(1, skip, end - begin);
  // From before the first base on.
  const int64_t unknown = std::min<int64_t>(end, 0) - begin;
  return at::constant_pad_nd(letters.narrow(1, 0, known), {unknown, 0}, kUnknownBase);
}

PackedBases PackedBases::clone() const {
  PackedBases out;
  out.bytes_ = bytes_.defined() ? bytes_.clone() : bytes_;
  out.size_ = size_;
  return out;
}

Tensor PackedBases::saved() const { return bytes_.narrow(1, 0, (size_ + 1) / 2).clone(); }

void PackedBases::load(const Tensor& saved, int64_t size) {
  if (saved.dim() != 2 || saved.scalar_type() != at::kByte || saved.size(1) != (size + 1) / 2)
    fail<CheckpointError>("a saved stream state holds no letters of ", size, " bases");
  bytes_ = at::constant_pad_nd(saved, {0, bytes_of(1, size) - saved.size(1)}).contiguous();
  size_ = size;
}

}  // namespace focus::compress

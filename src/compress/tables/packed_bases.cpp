#include "focus/compress/tables/packed_bases.h"
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
  const Tensor codes = codes_BN.to(at::kCPU).contiguous();
  const int64_t batch = codes.size(0), count = codes.size(1), needed = bytes_of(1, size_ + count);
  if (!bytes_.defined() || bytes_.size(1) < needed) {
    Tensor larger = at::zeros({batch, needed}, at::TensorOptions().dtype(at::kByte));
    if (bytes_.defined()) larger.narrow(1, 0, bytes_.size(1)).copy_(bytes_);
    bytes_ = larger;
  }
  for (int64_t b = 0; b < batch; ++b) {
    const uint8_t* source = codes.const_data_ptr<uint8_t>() + b * count;
    uint8_t* bytes = bytes_.mutable_data_ptr<uint8_t>() + b * bytes_.size(1);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = size_ + i;
      uint8_t& byte = bytes[at / 2];
      byte = at % 2 == 0 ? source[i] : static_cast<uint8_t>(byte | source[i] << 4);
    }
  }
  size_ += count;
}

Tensor PackedBases::codes(int64_t begin, int64_t end) const {
  FOCUS_CHECK(end <= size_ && begin <= end, "letters ", begin, "..", end, " of ", size_);
  const int64_t batch = bytes_.size(0);
  Tensor out = at::full({batch, end - begin}, kUnknownBase, at::TensorOptions().dtype(at::kByte));
  for (int64_t b = 0; b < batch; ++b) {
    const uint8_t* bytes = bytes_.const_data_ptr<uint8_t>() + b * bytes_.size(1);
    uint8_t* to = out.mutable_data_ptr<uint8_t>() + b * (end - begin);
    for (int64_t at = std::max<int64_t>(begin, 0); at < end; ++at)
      to[at - begin] = at % 2 == 0 ? bytes[at / 2] & 15 : bytes[at / 2] >> 4;
  }
  return out;
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
  bytes_ = at::constant_pad_nd(saved.to(at::kCPU), {0, bytes_of(1, size) - saved.size(1)}).contiguous();
  size_ = size;
}

}  // namespace focus::compress

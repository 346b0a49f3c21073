#include "sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace focus::formats {
namespace {

constexpr std::size_t kBlock = 64;

// First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, section 4.2.2).
alignas(16) constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using State = std::array<std::uint32_t, 8>;

void compress_portable(State& state, const std::uint8_t* block, std::size_t num_blocks) {
  for (; num_blocks > 0; --num_blocks, block += kBlock) {
    std::uint32_t w[64];
    for (int t = 0; t < 16; ++t) {
      w[t] = static_cast<std::uint32_t>(block[4 * t]) << 24 | static_cast<std::uint32_t>(block[4 * t + 1]) << 16 |
             static_cast<std::uint32_t>(block[4 * t + 2]) << 8 | block[4 * t + 3];
    }
    for (int t = 16; t < 64; ++t) {
      const std::uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
      const std::uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
      w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int t = 0; t < 64; ++t) {
      const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[t] + w[t];
      const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const State add = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state[i] += add[i];
  }
}

#if defined(__x86_64__)
// The x86 SHA extensions keep the state as two vectors, ABEF and CDGH, and do two rounds per instruction: a 40b checkpoint is 82 GB.
__attribute__((target("sha,sse4.1,ssse3"))) void compress_sha_ni(State& state, const std::uint8_t* block, std::size_t num_blocks) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  const auto word = [&state](int i) { return static_cast<int>(state[static_cast<std::size_t>(i)]); };
  __m128i abef = _mm_set_epi32(word(0), word(1), word(4), word(5));
  __m128i cdgh = _mm_set_epi32(word(2), word(3), word(6), word(7));
  for (; num_blocks > 0; --num_blocks, block += kBlock) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];  // the last 16 words of the message schedule, 4 in each
    for (int group = 0; group < 16; ++group) {
      const int now = group % 4;
      if (group < 4) {
        w[now] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block) + group), big_endian);
      } else {
        const __m128i previous = w[(now + 3) % 4];
        const __m128i middle = _mm_alignr_epi8(previous, w[(now + 2) % 4], 4);  // words t-7 .. t-4
        w[now] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[now], w[(now + 1) % 4]), middle), previous);
      }
      const __m128i sum = _mm_add_epi32(w[now], _mm_load_si128(reinterpret_cast<const __m128i*>(kRound) + group));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  alignas(16) std::uint32_t first[4], second[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(first), abef);
  _mm_store_si128(reinterpret_cast<__m128i*>(second), cdgh);
  state = {first[3], first[2], second[3], second[2], first[1], first[0], second[1], second[0]};
}

bool has_sha_ni() {
  // Leaf 7, EBX bit 29; __builtin_cpu_supports does not know the name in every supported compiler.
  unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
  __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (ebx >> 29 & 1U) != 0 && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}
#endif

}  // namespace

void Sha256::compress(const std::uint8_t* blocks, std::size_t num_blocks) {
#if defined(__x86_64__)
  static const bool fast = has_sha_ni();
  if (fast && !portable_) return compress_sha_ni(state_, blocks, num_blocks);
#endif
  compress_portable(state_, blocks, num_blocks);
}

void Sha256::update(const void* bytes, std::size_t num_bytes) {
  if (num_bytes == 0) return;
  const auto* cursor = static_cast<const std::uint8_t*>(bytes);
  total_bytes_ += num_bytes;
  if (num_pending_ > 0) {
    const std::size_t taken = std::min(num_bytes, kBlock - num_pending_);
    std::memcpy(pending_.data() + num_pending_, cursor, taken);
    num_pending_ += taken, cursor += taken, num_bytes -= taken;
    if (num_pending_ < kBlock) return;
    compress(pending_.data(), 1);
    num_pending_ = 0;
  }
  compress(cursor, num_bytes / kBlock);
  num_pending_ = num_bytes % kBlock;
  if (num_pending_ > 0) std::memcpy(pending_.data(), cursor + (num_bytes - num_pending_), num_pending_);
}

std::string Sha256::hex() {
  const std::uint64_t num_bits = total_bytes_ * 8;
  std::array<std::uint8_t, 2 * kBlock> tail{};
  std::memcpy(tail.data(), pending_.data(), num_pending_);
  tail[num_pending_] = 0x80;
  const std::size_t tail_bytes = num_pending_ + 9 <= kBlock ? kBlock : 2 * kBlock;
  for (std::size_t i = 0; i < 8; ++i) tail[tail_bytes - 1 - i] = static_cast<std::uint8_t>(num_bits >> (8 * i));
  compress(tail.data(), tail_bytes / kBlock);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) out += kHex[word >> shift & 15U];
  }
  return out;
}

}  // namespace focus::formats

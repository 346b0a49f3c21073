// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace focus::formats {

class Sha256 {
 public:
  /// `portable`: without the processor's SHA instructions, slower and with the same result.
  explicit Sha256(bool portable = false) : portable_(portable) {}
  void update(const void* bytes, std::size_t num_bytes);
  /// The digest as 64 lower-case hex digits; ends this hash.
  std::string hex();

 private:
  void compress(const std::uint8_t* blocks, std::size_t num_blocks);

  bool portable_;
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t num_pending_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace focus::formats

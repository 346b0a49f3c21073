// SHA-256 (FIPS 180-4) by OpenSSL, which picks the processor's instructions.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

struct evp_md_ctx_st;

namespace focus::formats {

class Sha256 {
 public:
  Sha256();
  void update(const void* bytes, std::size_t num_bytes);
  /// The digest as 64 lower-case hex digits; ends this hash.
  std::string hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace focus::formats

#include "sha256.h"

#include <openssl/evp.h>

#include <array>

#include "focus/core/error.h"

namespace focus::formats {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  FOCUS_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
              "OpenSSL has no SHA-256");
}

void Sha256::update(const void* bytes, std::size_t num_bytes) {
  FOCUS_CHECK(EVP_DigestUpdate(context_.get(), bytes, num_bytes) == 1, "OpenSSL's SHA-256 failed");
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  FOCUS_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1, "OpenSSL's SHA-256 failed");
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < size; ++i) out += {kHex[digest[i] >> 4], kHex[digest[i] & 15]};
  return out;
}

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

}  // namespace focus::formats

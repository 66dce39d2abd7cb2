// One 64-bit key that puts scores in a total order: greater score first, then lower index; NaN
// below -inf.
#pragma once

#include <cstdint>
#include <cstring>

namespace kinobeam {

inline uint64_t order_key(float score, uint32_t index) {
  uint32_t bits = 0;
  if (score == 0.0f) {
    score = 0.0f;  // -0 and +0 are one score
  }
  std::memcpy(&bits, &score, sizeof bits);
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t monotone = is_nan ? 0u : (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(monotone) << 32) | (0xFFFFFFFFu - index);
}

inline uint32_t index_of(uint64_t key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

}  // namespace kinobeam

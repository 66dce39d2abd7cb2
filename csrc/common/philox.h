// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), written
// from the paper.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define KB_INLINE inline __attribute__((always_inline))
#else
#define KB_INLINE inline
#endif

namespace kinobeam {

constexpr uint32_t kTagRoot = 0x524F4F54u;   // "ROOT"
constexpr uint32_t kTagChild = 0x4348494Cu;  // "CHIL"
constexpr uint32_t kTagNoise = 0x4E4F4953u;  // "NOIS"

constexpr uint32_t kPhiloxMul0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMul1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

struct Words {
  uint32_t x0, x1, x2, x3;
};

KB_INLINE uint32_t low_word(int64_t value) {
  return static_cast<uint32_t>(static_cast<uint64_t>(value));
}
KB_INLINE uint32_t high_word(int64_t value) {
  return static_cast<uint32_t>(static_cast<uint64_t>(value) >> 32);
}

KB_INLINE Words philox(uint32_t key0, uint32_t key1, Words x) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMul0) * x.x0;
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMul1) * x.x2;
    x = {static_cast<uint32_t>(p1 >> 32) ^ x.x1 ^ key0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x.x3 ^ key1, static_cast<uint32_t>(p0)};
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return x;
}

// A new 64-bit key: the first two words of Philox(key, (c0, c1, 0, tag)).
KB_INLINE int64_t derive_key(int64_t key, uint32_t c0, uint32_t c1, uint32_t tag) {
  const Words x = philox(low_word(key), high_word(key), {c0, c1, 0u, tag});
  return static_cast<int64_t>((static_cast<uint64_t>(x.x1) << 32) | x.x0);
}

}  // namespace kinobeam

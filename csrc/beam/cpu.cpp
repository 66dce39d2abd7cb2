// Beam operators on the CPU: lineage keys, counter-based normals, selection into stable slots, row
// moves.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "common/check.h"
#include "common/order_key.h"
#include "common/philox.h"
#include "kinobeam.h"

// Several instruction sets in one binary, chosen when it is loaded. Contraction to FMA is off
// (CMakeLists.txt), so that each of them, on every processor, gives the same bits.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define KB_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KB_MULTIVERSION
#endif

namespace kinobeam {
namespace {

constexpr int kLanes = 64;  // Philox blocks computed side by side: four normals each
constexpr int64_t kTileBlocks = 16 * kLanes;  // blocks in one unit of parallel work
constexpr int64_t kMoveTile = 1 << 20;        // bytes in one unit of parallel copying
constexpr int64_t kMoveSerial = 1 << 18;  // below this many bytes a thread costs more than it saves
constexpr int64_t kMaxExtent = std::numeric_limits<int64_t>::max() / 4;

KB_INLINE float as_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

KB_INLINE int32_t as_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// sqrt(-2 ln u) of u = ((x >> 8) + 1) * 2^-24: ln u = e ln 2 + 2 atanh((m-1)/(m+1)), m in
// [sqrt(1/2), sqrt(2)).
KB_INLINE float radius(uint32_t x) {
  const float u = static_cast<float>(static_cast<int32_t>(x >> 8) + 1) * 0x1p-24f;
  const int32_t bits = as_bits(u);
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;
  const float m = as_float(bits - exponent * (1 << 23));
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  const float series = z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9))));
  const float log_m = 2.0f * (s + s * series);
  return std::sqrt(
      std::max(0.0f, -2.0f * (static_cast<float>(exponent) * 0.693147180559945f + log_m)));
}

// cos and sin of 2 pi (y >> 8) * 2^-24: the quadrant is taken off in integers, the rest is |angle|
// <= pi/4.
KB_INLINE void cos_sin(uint32_t y, float& cosine, float& sine) {
  const int32_t turns = static_cast<int32_t>(y >> 8);
  const int32_t quadrant = (turns + (1 << 21)) >> 22;
  const float a =
      static_cast<float>(turns - quadrant * (1 << 22)) * (0x1p-22f * 1.57079632679489662f);
  const float z = a * a;
  const float s =
      a + a * z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z * (1.0f / 362880))));
  const float c =
      1.0f + z * (-0.5f +
                  z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320 + z * (-1.0f / 3628800)))));
  const float swapped_c = (quadrant & 1) ? s : c;
  const float swapped_s = (quadrant & 1) ? c : s;
  cosine = ((quadrant + 1) & 2) ? -swapped_c : swapped_c;
  sine = (quadrant & 2) ? -swapped_s : swapped_s;
}

// Normals of the blocks first .. first+kLanes-1, always all of them: a value cannot depend on where
// a row ends.
KB_MULTIVERSION void normal_lanes(uint32_t key0, uint32_t key1, uint32_t step, int64_t first,
                                  float* out) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t block = static_cast<uint64_t>(first) + static_cast<uint64_t>(lane);
    const Words x =
        philox(key0, key1,
               {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), step, kTagNoise});
    const float r0 = radius(x.x0);
    const float r1 = radius(x.x2);
    float c0, s0, c1, s1;
    cos_sin(x.x1, c0, s0);
    cos_sin(x.x3, c1, s1);
    out[4 * lane + 0] = r0 * c0;
    out[4 * lane + 1] = r0 * s0;
    out[4 * lane + 2] = r1 * c1;
    out[4 * lane + 3] = r1 * s1;
  }
}

void normal_tile(int64_t key, int64_t step, int64_t first, int64_t end, int64_t row_size,
                 float* row) {
  const uint32_t key0 = low_word(key), key1 = high_word(key), step0 = low_word(step);
  for (int64_t block = first; block < end; block += kLanes) {
    if (4 * (block + kLanes) <= row_size) {
      normal_lanes(key0, key1, step0, block, row + 4 * block);
    } else {
      float lanes[4 * kLanes];
      normal_lanes(key0, key1, step0, block, lanes);
      std::memcpy(row + 4 * block, lanes,
                  static_cast<size_t>(row_size - 4 * block) * sizeof(float));
    }
  }
}

// One group: `order` is scratch for pool_size keys, `rank_of` for pool_size ranks (-1: not a
// survivor).
void select_group(const float* scores, int64_t pool_size, int64_t num_beams, uint64_t* order,
                  int64_t* rank_of, int64_t* source, int64_t* rank, float* kept_scores,
                  int64_t* num_copied) {
  for (int64_t n = 0; n < pool_size; ++n) {
    order[n] = order_key(scores[n], static_cast<uint32_t>(n));
    rank_of[n] = -1;
  }
  std::partial_sort(order, order + num_beams, order + pool_size, std::greater<uint64_t>());
  for (int64_t b = 0; b < num_beams; ++b) {
    rank_of[index_of(order[b])] = b;
  }
  int64_t mover = num_beams;  // the next survivor from outside the slots
  int64_t copied = 0;
  for (int64_t b = 0; b < num_beams; ++b) {
    int64_t from = b;
    if (rank_of[b] < 0) {
      while (rank_of[mover] < 0) {
        ++mover;
      }
      from = mover++;
      ++copied;
    }
    source[b] = from;
    rank[b] = rank_of[from];
    kept_scores[b] = scores[from];
  }
  *num_copied = copied;
}

}  // namespace
}  // namespace kinobeam

using namespace kinobeam;

int kinobeam_abi_version(void) { return KINOBEAM_ABI_VERSION; }

int kinobeam_num_threads(void) {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

const char* kinobeam_status_string(int status) {
  switch (status) {
    case KINOBEAM_OK:
      return "ok";
    case KINOBEAM_NULL_POINTER:
      return "an array that its shape says is not empty has a null address";
    case KINOBEAM_BAD_SHAPE:
      return "an extent is negative or larger than the operator can index";
    case KINOBEAM_BAD_BEAMS:
      return "num_beams must be in 1..pool_size";
    case KINOBEAM_BAD_SOURCE:
      return "a source row is out of range, or a row to be overwritten is also a source";
    case KINOBEAM_OUT_OF_MEMORY:
      return "no memory for scratch space";
    default:
      return "unknown status";
  }
}

int kinobeam_philox_cpu(const int64_t* keys, const uint32_t* counters, int64_t count,
                        uint32_t* words) {
  KB_CHECK_EXTENT(count, kMaxExtent);
  KB_CHECK_ARRAY(keys, count);
  KB_CHECK_ARRAY(counters, count);
  KB_CHECK_ARRAY(words, count);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t* c = counters + 4 * i;
    const Words x = philox(low_word(keys[i]), high_word(keys[i]), {c[0], c[1], c[2], c[3]});
    const uint32_t result[4] = {x.x0, x.x1, x.x2, x.x3};
    std::memcpy(words + 4 * i, result, sizeof result);
  }
  return KINOBEAM_OK;
}

int kinobeam_root_keys_cpu(const int64_t* seeds, int64_t num_groups, int64_t num_roots,
                           int64_t* keys) {
  KB_CHECK_EXTENT(num_groups, kMaxExtent);
  KB_CHECK_EXTENT(num_roots, int64_t{1} << 32);
  KB_CHECK_ARRAY(seeds, num_groups);
  KB_CHECK_ARRAY(keys, num_groups && num_roots);
  for (int64_t g = 0; g < num_groups; ++g) {
    for (int64_t r = 0; r < num_roots; ++r) {
      keys[g * num_roots + r] = derive_key(seeds[g], static_cast<uint32_t>(r), 0u, kTagRoot);
    }
  }
  return KINOBEAM_OK;
}

int kinobeam_child_keys_cpu(const int64_t* parents, const int64_t* ordinals, const int64_t* steps,
                            int64_t count, int64_t* keys) {
  KB_CHECK_EXTENT(count, kMaxExtent);
  KB_CHECK_ARRAY(parents, count);
  KB_CHECK_ARRAY(ordinals, count);
  KB_CHECK_ARRAY(steps, count);
  KB_CHECK_ARRAY(keys, count);
  for (int64_t i = 0; i < count; ++i) {
    keys[i] = derive_key(parents[i], low_word(ordinals[i]), low_word(steps[i]), kTagChild);
  }
  return KINOBEAM_OK;
}

int kinobeam_counter_normal_cpu(const int64_t* keys, const int64_t* steps, int64_t step_stride,
                                int64_t num_rows, int64_t row_size, float* out) {
  KB_CHECK_EXTENT(num_rows, kMaxExtent);
  KB_CHECK_EXTENT(row_size, num_rows > 0 ? kMaxExtent / num_rows : kMaxExtent);
  KB_CHECK(step_stride == 0 || step_stride == 1, KINOBEAM_BAD_SHAPE);
  if (num_rows == 0 || row_size == 0) {
    return KINOBEAM_OK;
  }
  KB_CHECK_ARRAY(keys, num_rows);
  KB_CHECK_ARRAY(steps, num_rows);
  KB_CHECK_ARRAY(out, num_rows);
  const int64_t blocks = (row_size + 3) / 4;
  const int64_t tiles = (blocks + kTileBlocks - 1) / kTileBlocks;
  const int64_t work = num_rows * tiles;
#pragma omp parallel for schedule(static) if (num_rows * blocks > 2 * kTileBlocks)
  for (int64_t item = 0; item < work; ++item) {
    const int64_t row = item / tiles;
    const int64_t first = (item % tiles) * kTileBlocks;
    normal_tile(keys[row], steps[row * step_stride], first, std::min(first + kTileBlocks, blocks),
                row_size, out + row * row_size);
  }
  return KINOBEAM_OK;
}

int kinobeam_beam_select_cpu(const float* scores, int64_t num_groups, int64_t pool_size,
                             int64_t num_beams, int64_t* source, int64_t* rank, float* kept_scores,
                             int64_t* num_copied) {
  KB_CHECK_EXTENT(num_groups, kMaxExtent);
  KB_CHECK_EXTENT(pool_size, int64_t{1} << 32);
  KB_CHECK(num_beams >= 1 && num_beams <= pool_size, KINOBEAM_BAD_BEAMS);
  KB_CHECK_ARRAY(scores, num_groups);
  KB_CHECK_ARRAY(source, num_groups);
  KB_CHECK_ARRAY(rank, num_groups);
  KB_CHECK_ARRAY(kept_scores, num_groups);
  KB_CHECK_ARRAY(num_copied, num_groups);
  try {
    std::vector<uint64_t> order(static_cast<size_t>(pool_size));
    std::vector<int64_t> rank_of(static_cast<size_t>(pool_size));
    for (int64_t g = 0; g < num_groups; ++g) {
      select_group(scores + g * pool_size, pool_size, num_beams, order.data(), rank_of.data(),
                   source + g * num_beams, rank + g * num_beams, kept_scores + g * num_beams,
                   num_copied + g);
    }
  } catch (const std::bad_alloc&) {
    return KINOBEAM_OUT_OF_MEMORY;
  }
  return KINOBEAM_OK;
}

int kinobeam_beam_move_cpu(const int64_t* source, int64_t num_groups, int64_t pool_size,
                           int64_t num_beams, const kinobeam_rows* state, int64_t num_tensors) {
  KB_CHECK_EXTENT(num_groups, kMaxExtent);
  KB_CHECK_EXTENT(num_tensors, kMaxExtent);
  KB_CHECK(num_beams >= 1 && num_beams <= pool_size, KINOBEAM_BAD_BEAMS);
  KB_CHECK_ARRAY(source, num_groups);
  KB_CHECK_ARRAY(state, num_tensors);
  struct Copy {
    char* to;
    const char* from;
    size_t bytes;
  };
  try {
    std::vector<Copy> copies;
    int64_t total = 0;
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t* row = source + g * num_beams;
      for (int64_t b = 0; b < num_beams; ++b) {
        const int64_t from = row[b];
        KB_CHECK(from >= 0 && from < pool_size, KINOBEAM_BAD_SOURCE);
        KB_CHECK(from == b || from >= num_beams || row[from] == from, KINOBEAM_BAD_SOURCE);
        for (int64_t t = 0; from != b && t < num_tensors; ++t) {
          const kinobeam_rows& rows = state[t];
          char* group = reinterpret_cast<char*>(rows.data) + g * rows.group_stride;
          for (int64_t done = 0; done < rows.row_bytes; done += kMoveTile) {
            const int64_t bytes = std::min(kMoveTile, rows.row_bytes - done);
            copies.push_back({group + b * rows.row_stride + done,
                              group + from * rows.row_stride + done, static_cast<size_t>(bytes)});
            total += bytes;
          }
        }
      }
    }
    const int64_t count = static_cast<int64_t>(copies.size());
#pragma omp parallel for schedule(dynamic) if (total > kMoveSerial)
    for (int64_t i = 0; i < count; ++i) {
      const Copy& copy = copies[static_cast<size_t>(i)];
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
  } catch (const std::bad_alloc&) {
    return KINOBEAM_OUT_OF_MEMORY;
  }
  return KINOBEAM_OK;
}

/* The C ABI of Kinobeam's native operators: the only header an embedder needs.
 *
 * Knows neither Python nor torch. Pointers are plain host addresses of contiguous arrays unless a
 * stride is named; shapes are written in brackets, G groups (prompts), N pool rows, B surviving
 * beams. Every function returns KINOBEAM_OK or a status that kinobeam_status_string explains; on
 * any other status nothing was written. All functions are thread-safe, allocate nothing that
 * outlives the call, and use the caller's OpenMP runtime. */
#ifndef KINOBEAM_H_
#define KINOBEAM_H_

#include <stdint.h>

#define KINOBEAM_ABI_VERSION 1

#if defined(_WIN32)
#define KINOBEAM_API __declspec(dllexport)
#else
#define KINOBEAM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
  KINOBEAM_OK = 0,
  KINOBEAM_NULL_POINTER = 1, /* an array that the shape says is not empty has no address */
  KINOBEAM_BAD_SHAPE = 2,    /* a negative extent, or one beyond what the operator can index */
  KINOBEAM_BAD_BEAMS = 3,    /* num_beams is not in 1..pool_size */
  KINOBEAM_BAD_SOURCE = 4,   /* a source row is out of range, or a destination is also a source */
  KINOBEAM_OUT_OF_MEMORY = 5
};

/* One tensor of a beam state: row (g, n) is row_bytes bytes at data + g*group_stride + n*row_stride
 * (bytes). */
typedef struct kinobeam_rows {
  int64_t data;
  int64_t group_stride;
  int64_t row_stride;
  int64_t row_bytes;
} kinobeam_rows;

KINOBEAM_API int kinobeam_abi_version(void);
KINOBEAM_API const char* kinobeam_status_string(int status);
KINOBEAM_API int kinobeam_num_threads(void);

/* Philox4x32-10 of counters [count, 4] under keys [count] (low word first) -> words [count, 4]. */
KINOBEAM_API int kinobeam_philox_cpu(const int64_t* keys, const uint32_t* counters, int64_t count,
                                     uint32_t* words);

/* keys [G, R]: the key of root r under seeds[g]. */
KINOBEAM_API int kinobeam_root_keys_cpu(const int64_t* seeds, int64_t num_groups, int64_t num_roots,
                                        int64_t* keys);

/* keys [count]: the key of child ordinals[i] of parents[i] at steps[i] (low 32 bits of ordinal and
 * step). */
KINOBEAM_API int kinobeam_child_keys_cpu(const int64_t* parents, const int64_t* ordinals,
                                         const int64_t* steps, int64_t count, int64_t* keys);

/* out [num_rows, row_size]: standard normals, a pure function of (keys[row], step, element).
 * The step of a row is steps[row * step_stride]; step_stride is 0 (one step for all rows) or 1. */
KINOBEAM_API int kinobeam_counter_normal_cpu(const int64_t* keys, const int64_t* steps,
                                             int64_t step_stride, int64_t num_rows,
                                             int64_t row_size, float* out);

/* Selects the num_beams best of each group of scores [G, N] and gives each a stable slot.
 * source, rank [G, B] int64, kept_scores [G, B], num_copied [G] as kinobeam.kernels.beam.beam_prune
 * documents. */
KINOBEAM_API int kinobeam_beam_select_cpu(const float* scores, int64_t num_groups,
                                          int64_t pool_size, int64_t num_beams, int64_t* source,
                                          int64_t* rank, float* kept_scores, int64_t* num_copied);

/* Moves row source[g, b] to row b, in place, in each of the num_tensors tensors of a state with
 * pool_size rows. No destination (source[g, b] != b) may be a source; rows with source[g, b] == b
 * cost nothing. */
KINOBEAM_API int kinobeam_beam_move_cpu(const int64_t* source, int64_t num_groups,
                                        int64_t pool_size, int64_t num_beams,
                                        const kinobeam_rows* state, int64_t num_tensors);

#ifdef __cplusplus
}
#endif

#endif /* KINOBEAM_H_ */

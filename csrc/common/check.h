// Checks that read like a signature: each returns the status from the calling C function.
#pragma once

#include "kinobeam.h"

#define KB_CHECK(condition, status) \
  do {                              \
    if (!(condition)) {             \
      return (status);              \
    }                               \
  } while (0)

// An array of `count` elements: an empty one needs no address.
#define KB_CHECK_ARRAY(pointer, count) \
  KB_CHECK((count) == 0 || (pointer) != nullptr, KINOBEAM_NULL_POINTER)

// An extent in 0..limit.
#define KB_CHECK_EXTENT(extent, limit) \
  KB_CHECK((extent) >= 0 && (extent) <= (limit), KINOBEAM_BAD_SHAPE)

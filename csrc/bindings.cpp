// kinobeam.kernels._C: binds the C ABI and nothing else. Arrays are integer addresses; the GIL is
// released.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "kinobeam.h"

namespace {

template <typename T>
T* at(int64_t address) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(address));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  namespace py = pybind11;
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.doc() = "Kinobeam's C ABI (csrc/include/kinobeam.h); every function returns a status code.";
  m.attr("KINOBEAM_OK") = static_cast<int>(KINOBEAM_OK);
  m.attr("has_cuda") = false;
  m.def("abi_version", &kinobeam_abi_version);
  m.def("status_string", &kinobeam_status_string);
  m.def("num_threads", &kinobeam_num_threads);
  m.def(
      "philox_cpu",
      [](int64_t keys, int64_t counters, int64_t count, int64_t words) {
        return kinobeam_philox_cpu(at<int64_t>(keys), at<uint32_t>(counters), count,
                                   at<uint32_t>(words));
      },
      Unlocked());
  m.def(
      "root_keys_cpu",
      [](int64_t seeds, int64_t num_groups, int64_t num_roots, int64_t keys) {
        return kinobeam_root_keys_cpu(at<int64_t>(seeds), num_groups, num_roots, at<int64_t>(keys));
      },
      Unlocked());
  m.def(
      "child_keys_cpu",
      [](int64_t parents, int64_t ordinals, int64_t steps, int64_t count, int64_t keys) {
        return kinobeam_child_keys_cpu(at<int64_t>(parents), at<int64_t>(ordinals),
                                       at<int64_t>(steps), count, at<int64_t>(keys));
      },
      Unlocked());
  m.def(
      "counter_normal_cpu",
      [](int64_t keys, int64_t steps, int64_t step_stride, int64_t num_rows, int64_t row_size,
         int64_t out) {
        return kinobeam_counter_normal_cpu(at<int64_t>(keys), at<int64_t>(steps), step_stride,
                                           num_rows, row_size, at<float>(out));
      },
      Unlocked());
  m.def(
      "beam_select_cpu",
      [](int64_t scores, int64_t num_groups, int64_t pool_size, int64_t num_beams, int64_t source,
         int64_t rank, int64_t kept_scores, int64_t num_copied) {
        return kinobeam_beam_select_cpu(at<float>(scores), num_groups, pool_size, num_beams,
                                        at<int64_t>(source), at<int64_t>(rank),
                                        at<float>(kept_scores), at<int64_t>(num_copied));
      },
      Unlocked());
  m.def(
      "beam_move_cpu",
      [](int64_t source, int64_t num_groups, int64_t pool_size, int64_t num_beams, int64_t state,
         int64_t num_tensors) {
        return kinobeam_beam_move_cpu(at<int64_t>(source), num_groups, pool_size, num_beams,
                                      at<kinobeam_rows>(state), num_tensors);
      },
      Unlocked());
}

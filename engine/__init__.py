"""The sampler engine: knows operators by kinobeam.kernels, models and rewards by Protocol."""

"""The sampler engine: schedules, solvers, and the one search loop.

It knows operators by `kinobeam.kernels`, and models and rewards by the Protocols of `types`.
"""

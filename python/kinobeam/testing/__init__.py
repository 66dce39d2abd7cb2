"""What tests and benchmarks share: one comparison, and stand-ins for models."""

from kinobeam.testing.factories import (
    FakeDecoder,
    FakeDenoiser,
    colour_reward,
    lively_pipeline,
    pure_noise,
)
from kinobeam.testing.numeric import assert_close

__all__ = [
    "FakeDecoder",
    "FakeDenoiser",
    "assert_close",
    "colour_reward",
    "lively_pipeline",
    "pure_noise",
]

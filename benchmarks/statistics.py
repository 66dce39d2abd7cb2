"""Means with honest intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_Z = 1.96


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of a sample and its normal 95 % interval, mean +- 1.96 s / sqrt(n)."""
    count = len(values)
    if count < 2:
        raise ValueError(f"mean_interval: expected at least 2 values, got {count}")
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    half = _Z * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: Sequence[bool]) -> Interval:
    """A proportion and its 95 % Wilson interval."""
    count = len(hits)
    if count < 1:
        raise ValueError("share_interval: expected at least 1 value, got none")
    share = sum(hits) / count
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = (
        _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    )
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0))

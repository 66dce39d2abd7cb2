"""Reward per step, laid out as lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kinobeam.engine.types import StepTrace

_WIDTH, _HEIGHT = 880.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 16.0, 14.0, 38.0
_MAX_STEP_LABELS = 20


class Tick(NamedTuple):
    """A place on an axis and its text."""

    place: float
    text: str


class Line(NamedTuple):
    """One curve: `name` is also its CSS class; `points` as SVG wants them; `dots` their places."""

    name: str
    points: str
    dots: list[tuple[float, float]]


class Chart(NamedTuple):
    """Everything the page draws; `plain_y` is the reward of the plain video."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    lines: list[Line]
    rows: list[Tick]
    columns: list[Tick]
    plain_y: float | None


class Rewards(NamedTuple):
    """Of one step: the best and the mean of the pool, and the mean of those that were kept."""

    best: float
    mean: float
    kept: float


def step_rewards(steps: Sequence[StepTrace], prompt: int = 0) -> dict[int, Rewards]:
    """By step, counted from 1, where something was scored; means leave out infinite rewards."""
    found = {}
    for number, step in enumerate(steps, start=1):
        if step.scores is None:
            continue
        scores = step.scores[prompt]
        kept = [scores[n] for n in step.kept[prompt]]
        found[number] = Rewards(max(scores), _mean(scores), _mean(kept))
    return {n: r for n, r in found.items() if all(math.isfinite(value) for value in r)}


def build_chart(
    steps: Sequence[StepTrace], plain: float | None = None, prompt: int = 0
) -> Chart | None:
    """Lay the lines out; None when fewer than two steps were scored.

    Args:
        steps: as `SearchTrace` has them.
        plain: reward of the plain video, a level to compare with.
        prompt: which prompt.
    """
    rewards = step_rewards(steps, prompt)
    if len(rewards) < 2:
        return None
    plain = plain if plain is not None and math.isfinite(plain) else None
    values = [value for r in rewards.values() for value in r] + ([] if plain is None else [plain])
    levels = nice_levels(min(values), max(values))
    low, high = levels[0], levels[-1]
    last = len(steps)

    def x(step: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - 1) / (last - 1)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    every = -(-last // _MAX_STEP_LABELS)
    return Chart(
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        bottom=_HEIGHT - _BOTTOM,
        lines=[_line(name, rewards, x, y) for name in ("mean", "kept", "best")],
        rows=[Tick(y(level), f"{level:g}") for level in levels],
        columns=[Tick(x(n), str(n)) for n in range(1, len(steps) + 1, every)],
        plain_y=None if plain is None else y(plain),
    )


def nice_levels(low: float, high: float) -> list[float]:
    """Three to seven round numbers, evenly spaced, that enclose [low, high]."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    gap = next(m * power for m in (1, 2, 5, 10) if m * power >= span / 4)
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [round(n * gap, 12) for n in range(first, max(last, first + 1) + 1)]


def _line(
    name: str,
    rewards: dict[int, Rewards],
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> Line:
    dots = [(round(x(n), 1), round(y(getattr(r, name)), 1)) for n, r in rewards.items()]
    return Line(name, " ".join(f"{a},{b}" for a, b in dots), dots)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else -math.inf

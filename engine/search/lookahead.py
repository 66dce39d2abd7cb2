"""The estimate of the final clip that a candidate is scored by.

Legend: R rows of candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from kinobeam.engine.schedules import Schedule
from kinobeam.engine.solvers import clean_and_noise


class Estimate(NamedTuple):
    """`x0_R` is scored; `prediction_R` is the network's output on the candidates themselves."""

    x0_R: Tensor
    prediction_R: Tensor


def look_ahead(
    schedule: Schedule,
    step: int,
    latents_R: Tensor,
    num_lookahead_steps: int,
    predict: Callable[[Tensor, float], Tensor],
) -> Estimate:
    """Run the candidates of `step` down to a clean estimate, deterministically, in few steps.

    The first forward is at the next timestep of the schedule: for a candidate that survives it is
    the next step's own forward, so its output is handed back to be used again.

    Args:
        schedule: the table; `step` is not its last.
        latents_R: candidates, at the level that `step` goes to.
        num_lookahead_steps: L; 1 is the posterior mean (Tweedie) at the candidate.
        predict: (latents, timestep) -> network output.

    Source: diffusion latent beam search (arXiv 2501.19252), look-ahead estimator.
    """
    levels = schedule.lookahead(step, num_lookahead_steps)
    latents, first = latents_R, None
    for level, then in zip(levels, (*levels[1:], None), strict=True):
        prediction = predict(latents, level.timestep)
        first = prediction if first is None else first
        x0, eps = clean_and_noise(schedule, level, latents, prediction)
        if then is not None:
            latents = then.alpha * x0 + then.sigma * eps
    assert first is not None, "a look-ahead has at least one step"
    return Estimate(x0, first)

"""One update rule per function, with the mean, the spread and the log-probability of the step.

Legend: N rows; every tensor is (N, C, F, h, w) unless said otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kinobeam.engine.schedules import Level, Schedule


class StepOutput(NamedTuple):
    """A step before its noise is drawn: next latents ~ Normal(mean, std^2).

    `std` is 0 for a deterministic step; `x0` is the estimate of the clean latents.
    """

    mean: Tensor
    std: float
    x0: Tensor


def clean_and_noise(
    schedule: Schedule, level: Level, latents: Tensor, prediction: Tensor
) -> tuple[Tensor, Tensor]:
    """The estimates (x0, eps) that a prediction at `level` stands for.

    epsilon: x0 = (z - sigma p) / alpha, eps = p. v_prediction: x0 = alpha z - sigma p,
    eps = alpha p + sigma z. sample: x0 = p, eps = (z - alpha p) / sigma.

    Notes:
        x0 is clamped when the schedule clips; eps stays, as in diffusers' `DDIMScheduler`.
    """
    alpha, sigma = level.alpha, level.sigma
    if schedule.prediction_type == "epsilon":
        x0, eps = (latents - sigma * prediction) / alpha, prediction
    elif schedule.prediction_type == "sample":
        x0, eps = prediction, (latents - alpha * prediction) / sigma
    else:
        x0, eps = alpha * latents - sigma * prediction, alpha * prediction + sigma * latents
    if schedule.clip_range is not None:
        x0 = x0.clamp(-schedule.clip_range, schedule.clip_range)
    return x0, eps


def ddim(
    schedule: Schedule, step: int, latents: Tensor, prediction: Tensor, *, eta: float
) -> StepOutput:
    """One DDIM step; `eta` 0 is deterministic, 1 has the variance of DDPM.

    mean = alpha' x0 + sqrt(sigma'^2 - std^2) eps,
    std = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2), where ' marks the next level.

    Args:
        schedule: the table; `step` counts from 0.
        latents: z at `schedule.levels[step]`.
        prediction: the network's output there.
        eta: noise of the step, at least 0.

    Source: denoising diffusion implicit models (arXiv 2010.02502), equations 12 and 16.
    """
    now, then = schedule.levels[step], schedule.next_levels[step]
    x0, eps = clean_and_noise(schedule, now, latents, prediction)
    std = eta * ddim_spread(now, then)
    towards = math.sqrt(max(then.sigma**2 - std**2, 0.0))
    return StepOutput(then.alpha * x0 + towards * eps, std, x0)


def ddim_spread(now: Level, then: Level) -> float:
    """std of a DDIM step at eta = 1."""
    if now.sigma == 0:
        return 0.0
    ratio = 1 - (now.alpha / then.alpha) ** 2
    return then.sigma / now.sigma * math.sqrt(max(ratio, 0.0))


def log_prob(mean: Tensor, std: float, latents: Tensor) -> Tensor:
    """Log-density (N,) of `latents` under Normal(mean, std^2), summed over all elements.

    Raises:
        ValueError: std is 0; a deterministic step has no density.
    """
    if std <= 0:
        raise ValueError("log_prob: a deterministic step (std = 0) has no density; use eta > 0")
    squares = ((latents.double() - mean.double()) / std).square().flatten(1).sum(1)
    size = mean[0].numel()
    return (-0.5 * squares - size * (math.log(std) + 0.5 * math.log(2 * math.pi))).to(torch.float32)

"""A diffusers scheduler, read once into a table of coefficients.

Legend: T steps. At level t a latent is z = alpha * x0 + sigma * eps with alpha^2 + sigma^2 = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
_REFUSED = {
    "thresholding": "dynamic thresholding changes every step by the sample's own quantiles",
}


class Level(NamedTuple):
    """A noise level: the network is told `timestep`, the latent has `alpha` and `sigma`."""

    timestep: float
    alpha: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The T levels of a sampling run and the level that each step goes to.

    Args:
        levels: T levels, noisiest first.
        next_levels: T levels; step i goes from `levels[i]` to `next_levels[i]`.
        prediction_type: what the network predicts.
        num_train_timesteps: timesteps of the schedule in training.
        alphas_cumprod: (num_train_timesteps,) float64, alpha^2 of every integer timestep.
        clip_range: clean latents are clamped to +- this, or None.
    """

    levels: tuple[Level, ...]
    next_levels: tuple[Level, ...]
    prediction_type: str
    num_train_timesteps: int
    alphas_cumprod: Tensor
    clip_range: float | None = None

    @classmethod
    def from_diffusers(cls, scheduler: Any, num_inference_steps: int) -> Schedule:
        """Read a diffusers `DDIMScheduler` for `num_inference_steps` steps.

        The scheduler itself is left as it was: a copy made from its config is asked.

        Raises:
            TypeError: a scheduler of another class.
            ValueError: fewer than 1 step, more steps than training timesteps, or an option that has
                no fixed coefficients.

        Notes:
            Parity: `ddim` over this table equals `DDIMScheduler.step` at every step.
        """
        name = type(scheduler).__name__
        if name != "DDIMScheduler":
            raise TypeError(
                f"scheduler: expected DDIMScheduler, got {name}; replace it with "
                "DDIMScheduler.from_config(pipe.scheduler.config)"
            )
        config = scheduler.config
        _check(config, num_inference_steps)
        own = type(scheduler).from_config(config)
        own.set_timesteps(num_inference_steps)
        if own.timesteps.max() >= config.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps: {num_inference_steps} steps with steps_offset "
                f"{config.steps_offset} begin at timestep {own.timesteps.max()}, expected at most "
                f"{config.num_train_timesteps - 1}; take fewer steps"
            )
        alphas_cumprod = own.alphas_cumprod.double()
        stride = config.num_train_timesteps // num_inference_steps
        levels, next_levels = [], []
        for t in own.timesteps.tolist():
            levels.append(_level(t, alphas_cumprod[t]))
            inside = t - stride >= 0
            square = alphas_cumprod[t - stride] if inside else own.final_alpha_cumprod
            next_levels.append(_level(max(t - stride, 0), square))
        return cls(
            levels=tuple(levels),
            next_levels=tuple(next_levels),
            prediction_type=config.prediction_type,
            num_train_timesteps=config.num_train_timesteps,
            alphas_cumprod=alphas_cumprod,
            clip_range=config.clip_sample_range if config.clip_sample else None,
        )

    @property
    def num_steps(self) -> int:
        return len(self.levels)

    def lookahead(self, step: int, num_lookahead_steps: int) -> tuple[Level, ...]:
        """Levels of the deterministic look-ahead that follows step `step` (not the last).

        The grid goes from the next entry s of the timesteps to 0 in equal slices, (s * m) // L for
        m = L..1, without the repetitions that integer division makes near the end.

        Source: diffusion latent beam search (arXiv 2501.19252), look-ahead estimator.
        """
        start = int(self.levels[step + 1].timestep)
        parts = num_lookahead_steps
        grid = dict.fromkeys(start * m // parts for m in range(parts, 0, -1))
        return tuple(_level(t, self.alphas_cumprod[t]) for t in grid)


def _level(timestep: float, alpha_squared: Tensor) -> Level:
    square = torch.as_tensor(alpha_squared, dtype=torch.float64)
    return Level(timestep, square.sqrt().item(), (1 - square).clamp(min=0).sqrt().item())


def _check(config: Any, num_inference_steps: int) -> None:
    if isinstance(num_inference_steps, bool) or not isinstance(num_inference_steps, int):
        raise TypeError(f"num_inference_steps: expected an integer, got {num_inference_steps!r}")
    if not 1 <= num_inference_steps <= config.num_train_timesteps:
        raise ValueError(
            f"num_inference_steps: expected 1 to {config.num_train_timesteps} (the scheduler's "
            f"training timesteps), got {num_inference_steps}"
        )
    if config.prediction_type not in PREDICTION_TYPES:
        raise ValueError(
            f"prediction_type: expected one of {', '.join(PREDICTION_TYPES)}; "
            f"got {config.prediction_type!r}"
        )
    for option, reason in _REFUSED.items():
        if config.get(option):
            raise ValueError(
                f"scheduler option {option!r} is not supported: {reason}; set it to False"
            )

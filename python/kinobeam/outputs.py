"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput
from torch import Tensor

from kinobeam.engine.types import SearchTrace


@dataclass(frozen=True, slots=True)
class GenerationMetrics:
    """What was asked for, resolved, and how long it took."""

    seconds: float
    seed: list[int]
    eta: float
    num_inference_steps: int
    guidance_scale: float
    micro_batch: int
    reward: str | None


@dataclass
class VideoPipelineOutput(BaseOutput):
    """Videos and how they came about.

    Args:
        frames: as diffusers shapes them: `"pt"` (G, F, 3, H, W), `"np"` (G, F, H, W, 3), both in
            [0, 1]; `"pil"` a list of lists of pictures; `"latent"` (G, C, F, h, w).
        rewards: (G,) float32 of the delivered videos, or None when nothing was scored.
        search_trace: scores, survivors and costs of every step.
        metrics: seconds and the resolved settings.
    """

    frames: Any
    rewards: Tensor | None = None
    search_trace: SearchTrace | None = None
    metrics: GenerationMetrics | None = None

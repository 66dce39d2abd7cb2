"""What the engine asks of models and rewards, and what it passes between its parts.

Legend: N rows, G prompts, B beams, C latent channels, F frames, h and w latent positions, H and W
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What a denoiser knows of one prompt, encoded once per request.

    Args:
        bucket: rows go through the network together only when their buckets are equal, so that the
            shape of a call, and with it every bit of the result, depends on the row's own prompt.
        tensors: named tensors of this prompt, without a batch dimension; the same names and shapes
            for every prompt of a bucket.
    """

    bucket: int
    tensors: dict[str, Tensor]


class Denoiser(Protocol):
    """A network that predicts noise, velocity or the clean latents, guidance included."""

    latent_shape: tuple[int, ...]
    """(C, F, h, w) of one latent."""

    def encode(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> list[Conditioning]: ...

    def __call__(
        self, latents: Tensor, timesteps: Tensor, tensors: dict[str, Tensor], guidance_scale: float
    ) -> Tensor:
        """(N, C, F, h, w) to the same; `timesteps` (N,); `tensors` stacked over the N rows."""
        ...


class Decoder(Protocol):
    """Turns latents (N, C, F, h, w) into videos (N, 3, F, H, W), float32 in [0, 1]."""

    def __call__(self, latents: Tensor) -> Tensor: ...


class RewardOutput(NamedTuple):
    """`scores` (N,) float32, higher is better; `details` named parts (N,) of the score."""

    scores: Tensor
    details: dict[str, Tensor] = {}


@runtime_checkable
class Reward(Protocol):
    """Scores videos (N, 3, F, H, W) in [0, 1] against N prompts; may return a plain (N,) tensor.

    For bits that do not depend on a video's neighbours, avoid ending in a matrix product with one
    output column: its rounding depends on the row's place at some batch sizes. Multiply and sum.
    """

    def __call__(
        self, videos: Tensor, prompts: list[str], **columns: Any
    ) -> RewardOutput | Tensor: ...


class SearchStep(NamedTuple):
    """What an observer is told after every sampling step.

    Rows of `videos` are the candidates that were scored, or None when nothing was scored;
    `kept_GB[g, b]` is the candidate that now sits in slot b of prompt g.
    """

    step: int
    num_steps: int
    timestep: float
    scores_GN: Tensor | None
    kept_GB: Tensor
    rank_GB: Tensor
    best_reward: float | None
    videos: Tensor | None


@dataclass(slots=True)
class StepTrace:
    """One step of a search: scores of the pool and, per slot, which candidate survived."""

    step: int
    timestep: float
    num_candidates: int
    scores: list[list[float]] | None
    """[prompt][candidate], candidate n = beam * num_candidates + ordinal; None: not scored."""
    kept: list[list[int]]
    """[prompt][slot] -> candidate."""
    rank: list[list[int]]
    """[prompt][slot] -> 0 for the best."""


@dataclass(slots=True)
class SearchTrace:
    """What a search did and what it cost; counts are of latents, a guidance pair counts once."""

    nfe: int = 0
    decodes: int = 0
    reward_calls: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    steps: list[StepTrace] = field(default_factory=list)

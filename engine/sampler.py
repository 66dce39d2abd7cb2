"""The models of a request behind one face: batched, counted, timed, checked.

Legend: R rows (latents of all prompts, beams and candidates), C, F, h, w latent sizes, H, W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kinobeam.engine.batching import map_rows
from kinobeam.engine.types import Conditioning, Decoder, Denoiser, RewardOutput, SearchTrace

RewardFn = Callable[..., RewardOutput | Tensor]


class Models:
    """Denoiser, decoder and reward of one request.

    Args:
        denoiser, decoder: see `kinobeam.engine.types`.
        reward: None when nothing will be scored.
        prompts: G prompts; `rows_prompt` arguments index them.
        conditioning: of each prompt.
        guidance_scale: passed to the denoiser.
        micro_batch: rows of every call.
        columns: extra columns for the reward, one list of G values per name.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decoder: Decoder,
        reward: RewardFn | None,
        *,
        prompts: Sequence[str],
        conditioning: Sequence[Conditioning],
        guidance_scale: float,
        micro_batch: int,
        columns: dict[str, list[Any]] | None = None,
    ) -> None:
        self.denoiser, self.decoder, self.reward = denoiser, decoder, reward
        self.prompts, self.conditioning = list(prompts), list(conditioning)
        self.guidance_scale, self.micro_batch = guidance_scale, micro_batch
        self.columns = columns or {}
        self.device = next(iter(self.conditioning[0].tensors.values())).device
        self.trace = SearchTrace()

    def predict(self, latents_R: Tensor, timestep: float, prompt_R: list[int]) -> Tensor:
        """The network's output (R, C, F, h, w); row r belongs to prompt `prompt_R[r]`."""

        def call(rows: Tensor) -> Tensor:
            own = [self.conditioning[prompt_R[r]].tensors for r in rows.tolist()]
            tensors = {name: torch.stack([t[name] for t in own]) for name in own[0]}
            times = torch.full((len(rows),), timestep, device=latents_R.device)
            return self.denoiser(latents_R[rows], times, tensors, self.guidance_scale)

        self.trace.nfe += len(latents_R)
        buckets = [self.conditioning[g].bucket for g in prompt_R]
        with self.timed("denoise"):
            return self._map(call, latents_R, buckets)

    def decode(self, latents_R: Tensor) -> Tensor:
        """Videos (R, 3, F, H, W) in [0, 1]."""
        self.trace.decodes += len(latents_R)
        with self.timed("decode"):
            return self._map(lambda rows: self.decoder(latents_R[rows]), latents_R)

    def score(self, videos_R: Tensor, prompt_R: list[int]) -> Tensor:
        """Rewards (R,) float32.

        Raises:
            TypeError, ValueError: the reward returned something that is not one number per video.
        """
        assert self.reward is not None, "score needs a reward"
        reward = self.reward

        def call(rows: Tensor) -> Tensor:
            own = [prompt_R[r] for r in rows.tolist()]
            columns = {name: [values[g] for g in own] for name, values in self.columns.items()}
            output = reward(videos_R[rows], [self.prompts[g] for g in own], **columns)
            return checked_scores(output, len(rows)).to(videos_R.device)

        self.trace.reward_calls += len(videos_R)
        with self.timed("reward"):
            return self._map(call, videos_R)

    def _map(
        self, call: Callable[[Tensor], Tensor], rows: Tensor, buckets: list[int] | None = None
    ) -> Tensor:
        return map_rows(call, len(rows), self.micro_batch, buckets=buckets, device=rows.device)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `trace.seconds[stage]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.trace.seconds
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def checked_scores(output: Any, count: int) -> Tensor:
    """The scores (count,) float32 of what a reward returned.

    Raises:
        TypeError: neither a tensor nor a `RewardOutput`.
        ValueError: a wrong shape or count, or NaN among the scores.
    """
    scores = output.scores if isinstance(output, RewardOutput) else output
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"reward: expected a tensor of {count} scores or a RewardOutput, got "
            f"{_described(output)}; return torch.tensor([...]), one number per video"
        )
    if scores.shape != (count,):
        raise ValueError(
            f"reward: expected one score per video, shape ({count},), got {tuple(scores.shape)}; "
            "reduce over frames and pixels, keep the batch"
        )
    if scores.isnan().any():
        rows = scores.isnan().nonzero()[:, 0].tolist()
        raise ValueError(
            f"reward: expected numbers, got NaN for videos {rows} of {count}; a search cannot rank "
            "them, so return -inf for a video that cannot be scored"
        )
    return scores.detach().to(torch.float32)


def _described(output: Any) -> str:
    if isinstance(output, RewardOutput):
        return f"a RewardOutput whose scores are {type(output.scores).__name__}"
    return type(output).__name__

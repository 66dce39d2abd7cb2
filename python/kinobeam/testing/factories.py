"""Stand-ins for models: deterministic, smooth, quick.

Legend: N rows, C latent channels, F frames, h and w latent positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinobeam.engine.types import Conditioning
from kinobeam.kernels.beam import counter_normal, root_keys

_BUCKET = 8


class FakeDenoiser:
    """A smooth function of latents, timestep and prompt; it notes (rows, timestep) of its calls.

    Prompts of up to 7 words, up to 15 and so on fall into different buckets.
    """

    def __init__(self, latent_shape: tuple[int, ...] = (4, 3, 4, 4)) -> None:
        self.latent_shape = latent_shape
        self.calls: list[tuple[int, float]] = []

    def encode(self, prompts: Sequence[str], negative_prompts: Sequence[str]) -> list[Conditioning]:
        channels = self.latent_shape[0]
        return [
            Conditioning(
                len(prompt.split()) // _BUCKET,
                {
                    "text": _prompt_vector(prompt, channels),
                    "negative": _prompt_vector(negative, channels),
                },
            )
            for prompt, negative in zip(prompts, negative_prompts, strict=True)
        ]

    def __call__(
        self, latents: Tensor, timesteps: Tensor, tensors: dict[str, Tensor], guidance_scale: float
    ) -> Tensor:
        self.calls.append((len(latents), timesteps[0].item()))
        assert (timesteps == timesteps[0]).all(), "a call has one timestep"
        time = timesteps.to(latents) / 1000
        unconditional = _field(latents, time, tensors["negative"])
        conditional = _field(latents, time, tensors["text"])
        return unconditional + guidance_scale * (conditional - unconditional)


def _field(latents: Tensor, time_N: Tensor, text_NC: Tensor) -> Tensor:
    shift = text_NC.to(latents)[:, :, None, None, None]
    time = time_N[:, None, None, None, None]
    mixed = 0.7 * latents + 0.3 * latents.roll(1, dims=2)
    return torch.tanh(mixed + shift * (1.2 - time)) + 0.2 * torch.sin(3 * latents)


class FakeDecoder:
    """Latents (N, C, F, h, w) to videos (N, 3, F, 2h, 2w) in [0, 1]; it notes rows of its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, latents: Tensor) -> Tensor:
        self.calls.append(len(latents))
        videos = torch.sigmoid(2 * latents[:, :3])
        return videos.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def colour_reward(videos: Tensor, prompts: Sequence[str], **columns: Any) -> Tensor:
    """How much of a colour that the prompt fixes a video has (N,); differentiable."""
    wanted = torch.stack([_prompt_vector(prompt, 3) for prompt in prompts]).to(videos)
    return (videos.mean((2, 3, 4)) * wanted).sum(1)


def _prompt_vector(prompt: str, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
    return torch.rand(size, generator=generator) * 2 - 1


def pure_noise(seed: int, shape: tuple[int, ...], num_roots: int = 1) -> Tensor:
    """The initial latents (R, *shape) that a search of this seed gives its first R beams."""
    return counter_normal(root_keys([seed], num_roots)[0], -1, shape)


def lively_pipeline(folder: Path) -> Any:
    """The pipeline of a folder, with a transformer that predicts something.

    The last layer of a barely trained Latte is nearly zero, so that every prompt and every step
    would give the same; here it is random.
    """
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    weight = pipe.transformer.proj_out.weight
    with torch.no_grad():
        weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    return pipe

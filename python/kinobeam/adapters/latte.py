"""Latte behind the engine's Protocols.

Legend: N rows, C latent channels, F frames, h and w latent positions, H and W pixels, L text
tokens, D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from diffusers import LattePipeline
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor
from torch.nn import functional

from kinobeam.adapters import Adapted
from kinobeam.engine.types import Conditioning

_TEXT_BUCKET = 16
_MASKED = -10_000.0
_DEFAULT_STEPS, _DEFAULT_GUIDANCE = 50, 7.5


def adapt_latte(pipe: LattePipeline) -> Adapted:
    """Wrap a `LattePipeline`; its defaults are those of the pipeline's own `__call__`."""
    size = pipe.transformer.config.sample_size * pipe.vae_scale_factor
    return Adapted(
        denoiser=LatteDenoiser(pipe),
        decoder=LatteDecoder(pipe),
        scheduler=pipe.scheduler,
        num_frames=pipe.transformer.config.video_length,
        height=size,
        width=size,
        num_inference_steps=_DEFAULT_STEPS,
        guidance_scale=_DEFAULT_GUIDANCE,
    )


class LatteDenoiser:
    """Latte's transformer with guidance, both branches in one forward.

    Notes:
        The pipeline cuts text to the prompt's own tokens; here it is padded to a bucket and masked,
        which is the same to rounding and lets prompts of different lengths share a call.
    """

    def __init__(self, pipe: LattePipeline) -> None:
        self._pipe = pipe
        config = pipe.transformer.config
        size = config.sample_size
        self.latent_shape: tuple[int, ...] = (config.in_channels, config.video_length, size, size)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], negative_prompts: Sequence[str]) -> list[Conditioning]:
        """Encode each prompt as the pipeline would encode it alone."""
        pairs = zip(prompts, negative_prompts, strict=True)
        return [self._encode_one(prompt, negative) for prompt, negative in pairs]

    def _encode_one(self, prompt: str, negative_prompt: str) -> Conditioning:
        text, negative = self._pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=True,
            negative_prompt=negative_prompt,
            clean_caption=is_bs4_available() and is_ftfy_available(),
        )
        length = text.shape[1]
        bucket = -(-length // _TEXT_BUCKET) * _TEXT_BUCKET
        bias = torch.full((bucket,), _MASKED, dtype=text.dtype, device=text.device)
        bias[:length] = 0
        padding = (0, 0, 0, bucket - length)
        tensors = {
            "text": functional.pad(text[0], padding),
            "negative": functional.pad(negative[0], padding),
            "bias": bias,
        }
        return Conditioning(bucket, tensors)

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, timesteps: Tensor, tensors: dict[str, Tensor], guidance_scale: float
    ) -> Tensor:
        """Guided prediction: uncond + guidance_scale * (cond - uncond); none at scale <= 1."""
        if guidance_scale <= 1:
            return self._forward(latents, timesteps, tensors["text"], tensors["bias"])
        both = self._forward(
            torch.cat([latents, latents]),
            torch.cat([timesteps, timesteps]),
            torch.cat([tensors["negative"], tensors["text"]]),
            torch.cat([tensors["bias"], tensors["bias"]]),
        )
        unconditional, conditional = both.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _forward(
        self, latents: Tensor, timesteps: Tensor, text_NLD: Tensor, bias_NL: Tensor
    ) -> Tensor:
        transformer = self._pipe.transformer
        bias = bias_NL[:, None].repeat_interleave(latents.shape[2], dim=0)
        output = transformer(
            latents.to(transformer.dtype),
            timestep=timesteps,
            encoder_hidden_states=text_NLD,
            encoder_attention_mask=bias,
            return_dict=False,
        )[0]
        return output[:, : latents.shape[1]].to(latents.dtype)


class LatteDecoder:
    """Latte's autoencoder: latents (N, C, F, h, w) to videos (N, 3, F, H, W) in [0, 1]."""

    def __init__(self, pipe: LattePipeline) -> None:
        self._vae = pipe.vae
        self._temporal = "num_frames" in inspect.signature(pipe.vae.forward).parameters

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        num_frames = latents.shape[2]
        frames = latents.transpose(1, 2).flatten(0, 1) / self._vae.config.scaling_factor
        options = {"num_frames": num_frames} if self._temporal else {}
        decoded = self._vae.decode(frames.to(self._vae.dtype), **options).sample
        videos = decoded.unflatten(0, (-1, num_frames)).transpose(1, 2)
        return (videos.float() / 2 + 0.5).clamp(0, 1)

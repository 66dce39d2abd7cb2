"""The world's autoencoder: a small diffusers `AutoencoderKL`, frame by frame.

Legend: N clips or frames, C latent channels, F frames, H and W pixels, h and w latent positions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from kinobeam.world.clips import draw_clips, draw_seeds
from kinobeam.world.config import WorldRecipe
from kinobeam.world.loop import num_processes, train_stage

_FIRST_LOG_VARIANCE = -6.0
_COLOUR_WEIGHT = 8.0


def build_vae(recipe: WorldRecipe) -> AutoencoderKL:
    """A convolutional autoencoder with random weights.

    Its residual branches start at zero and its posterior narrow: with the usual wide start the
    decoder learns to ignore the latents of objects this small.
    """
    depth = len(recipe.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=recipe.vae_channels,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=4,
        sample_size=recipe.size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    nn.init.constant_(vae.quant_conv.bias[recipe.latent_channels :], _FIRST_LOG_VARIANCE)
    return vae


def train_vae(recipe: WorldRecipe, folder: Path) -> AutoencoderKL:
    """Train on single frames, then make every latent channel standard.

    The loss is L1 + squared error, weighted towards coloured pixels since objects are small, plus a
    slight KL.
    """

    def loss_fn(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, AutoencoderKL)
        frames = _draw_frames(recipe, recipe.vae.batch_size // num_processes(), generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(frames * 2 - 1).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            decoded = model.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - (frames * 2 - 1)
        weight = 1 + _COLOUR_WEIGHT * (frames.amax(1, keepdim=True) - frames.amin(1, keepdim=True))
        kl = posterior.kl().float().mean()
        loss = (weight * (error.abs() + error.square())).mean() / 2 + recipe.kl_weight * kl
        return {"loss": loss, "l1": error.abs().mean(), "kl": kl}

    torch.manual_seed(recipe.seed)
    vae = train_stage("vae", build_vae(recipe), loss_fn, recipe.vae, folder)
    assert isinstance(vae, AutoencoderKL)
    standardise_latents(vae, _draw_frames(recipe, 1024, torch.Generator().manual_seed(2**31)))
    return vae


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, frames: Tensor) -> None:
    """Fold an affine map into the convolutions around the latents: every channel gets mean 0 and
    variance 1 over `frames` (N, 3, H, W) in [0, 1], and the autoencoder computes what it did.
    """
    latents = vae.encode(frames * 2 - 1).latent_dist.mean
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    count = len(mean)
    out.bias += (out.weight * mean[:, None, None]).sum((1, 2, 3))
    out.weight *= std[:, None, None]
    into.weight[:count] /= std[:, None, None, None]
    into.bias[:count] = (into.bias[:count] - mean) / std
    into.bias[count:] -= 2 * std.log()


def _draw_frames(recipe: WorldRecipe, count: int, generator: torch.Generator) -> Tensor:
    """Frames (N, 3, H, W) of every kind of scene, two from each clip."""
    seeds = draw_seeds(count // 2, generator)
    _, videos = draw_clips(recipe, seeds, details=True)
    _, pairs = draw_clips(recipe, seeds[: len(seeds) // 4], two_objects=True)
    videos[: len(pairs)] = pairs
    picks = torch.randint(recipe.num_frames, (len(videos), 2), generator=generator)
    return videos.transpose(1, 2)[torch.arange(len(videos))[:, None], picks].flatten(0, 1)


@torch.no_grad()
def encode_videos(vae: AutoencoderKL, videos: Tensor) -> Tensor:
    """Standardised mean latents (N, C, F, h, w) of videos (N, 3, F, H, W) in [0, 1]."""
    num_frames = videos.shape[2]
    frames = videos.transpose(1, 2).flatten(0, 1) * 2 - 1
    latents = vae.encode(frames).latent_dist.mean * vae.config.scaling_factor
    return latents.unflatten(0, (-1, num_frames)).transpose(1, 2)


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Videos (N, 3, F, H, W) in [0, 1] of latents (N, C, F, h, w)."""
    num_frames = latents.shape[2]
    frames = latents.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor
    decoded = vae.decode(frames).sample.unflatten(0, (-1, num_frames)).transpose(1, 2)
    return (decoded / 2 + 0.5).clamp(0, 1)

"""The world's base model: a tiny `LattePipeline`, trained from noise to clips.

Legend: N clips, C latent channels, F frames, h and w latent positions, L caption tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LattePipeline, LatteTransformer3DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from kinobeam.world.autoencoder import encode_videos
from kinobeam.world.clips import draw_captions, draw_clips, draw_scenes, draw_seeds
from kinobeam.world.config import WorldRecipe
from kinobeam.world.loop import (
    num_processes,
    process_rank,
    save_whole,
    train_stage,
    wait_for_everyone,
)
from kinobeam.world.scenes import Scene
from kinobeam.world.text import build_tokenizer

_ENCODE_BATCH = 16


class BaseModel(nn.Module):
    """Text encoder and transformer, trained together."""

    def __init__(self, recipe: WorldRecipe, vocab_size: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(recipe, vocab_size)
        self.transformer = build_transformer(recipe)


def build_text_encoder(recipe: WorldRecipe, vocab_size: int) -> T5EncoderModel:
    """A T5 encoder with random weights."""
    config = T5Config(
        vocab_size=vocab_size,
        d_model=recipe.text_width,
        d_kv=recipe.text_width // 4,
        d_ff=2 * recipe.text_width,
        num_layers=recipe.text_layers,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def build_transformer(recipe: WorldRecipe) -> LatteTransformer3DModel:
    """A Latte transformer with random weights; its last layer starts at zero.

    It has twice the output channels, as `LattePipeline` expects, and the pipeline drops the second
    half (Latte's learned variance), so it is left untrained.
    """
    width = recipe.num_heads * recipe.head_dim
    transformer = LatteTransformer3DModel(
        num_attention_heads=recipe.num_heads,
        attention_head_dim=recipe.head_dim,
        in_channels=recipe.latent_channels,
        out_channels=2 * recipe.latent_channels,
        num_layers=recipe.num_layers,
        cross_attention_dim=width,
        attention_bias=True,
        sample_size=recipe.latent_size,
        patch_size=recipe.patch_size,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=recipe.text_width,
        video_length=recipe.num_frames,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def build_scheduler() -> DDIMScheduler:
    """Cosine schedule, v-prediction, timesteps that start at pure noise."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def train_base(recipe: WorldRecipe, vae: AutoencoderKL, folder: Path) -> LattePipeline:
    """Train text encoder and transformer on a bank of encoded clips; returns the whole pipeline."""
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    scenes, bank = _encoded_bank(recipe, vae, folder)
    alphas = scheduler.alphas_cumprod

    def loss_fn(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, BaseModel)
        share = recipe.base.batch_size // num_processes()
        picks = torch.randint(len(bank), (share,), generator=generator)
        latents = bank[picks].float()
        captions = draw_captions([scenes[i] for i in picks.tolist()], generator)
        ids, mask, keep = _tokenize(tokenizer, captions, recipe, generator)
        steps = torch.randint(len(alphas), (len(latents),), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = alphas[steps].sqrt()[:, None, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predict(model, alpha * latents + sigma * noise, steps, ids, mask, keep)
        return {"loss": functional.mse_loss(predicted.float(), alpha * noise - sigma * latents)}

    torch.manual_seed(recipe.seed)
    model = BaseModel(recipe, len(tokenizer))
    _use_plain_attention(model.transformer)
    trained = train_stage("base", model, loss_fn, recipe.base, folder)
    return LattePipeline(
        tokenizer=tokenizer,
        text_encoder=trained.text_encoder,
        vae=vae,
        transformer=trained.transformer,
        scheduler=scheduler,
    )


def predict(
    model: BaseModel, noisy: Tensor, steps: Tensor, ids: Tensor, mask: Tensor, keep: Tensor
) -> Tensor:
    """The transformer's prediction from noisy latents (N, C, F, h, w).

    Args:
        ids, mask: (N, L) tokens and the text encoder's mask.
        keep: (N, L) bool, the encoded tokens that the transformer sees. As in `LattePipeline`, the
            empty caption is seen over as many tokens as the caption it replaces.
    """
    hidden = model.text_encoder(ids, attention_mask=mask).last_hidden_state
    bias = (~keep).to(hidden.dtype) * -10_000.0
    bias = bias[:, None].repeat_interleave(noisy.shape[2], dim=0)
    output: Tensor = model.transformer(
        noisy,
        timestep=steps,
        encoder_hidden_states=hidden,
        encoder_attention_mask=bias,
        return_dict=False,
    )[0]
    return output.chunk(2, dim=1)[0]


def _tokenize(
    tokenizer: T5Tokenizer, captions: list[str], recipe: WorldRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    def encode(texts: list[str]) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"padding": "max_length", "max_length": recipe.max_caption_tokens}
        batch = tokenizer(texts, truncation=True, return_tensors="pt", **options)
        return batch.input_ids, batch.attention_mask

    _, keep = encode(captions)
    drop = torch.rand(len(captions), generator=generator) < recipe.caption_dropout
    ids, mask = encode(["" if d else c for c, d in zip(captions, drop.tolist(), strict=True)])
    longest = int(keep.sum(1).max())
    return ids[:, :longest], mask[:, :longest], keep[:, :longest].bool()


def _encoded_bank(
    recipe: WorldRecipe, vae: AutoencoderKL, folder: Path
) -> tuple[list[Scene], Tensor]:
    """Scenes and their latents (N, C, F, h, w) as float16; encoded once and kept in `folder`."""
    seeds = draw_seeds(recipe.num_bank_clips, torch.Generator().manual_seed(recipe.seed + 1))
    size = num_processes()
    parts = [folder / f"bank-{rank}-of-{size}.pt" for rank in range(size)]
    own = parts[process_rank()]
    if not own.exists():
        share = seeds[
            process_rank() * len(seeds) // size : (process_rank() + 1) * len(seeds) // size
        ]
        save_whole(_encode_clips(recipe, vae, share), own)
    wait_for_everyone()
    return draw_scenes(seeds), torch.cat([torch.load(part, weights_only=True) for part in parts])


def _encode_clips(recipe: WorldRecipe, vae: AutoencoderKL, seeds: list[int]) -> Tensor:
    latents = []
    for start in range(0, len(seeds), _ENCODE_BATCH):
        _, videos = draw_clips(recipe, seeds[start : start + _ENCODE_BATCH])
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(encode_videos(vae, videos).half())
    return torch.cat(latents)


def _use_plain_attention(transformer: LatteTransformer3DModel) -> None:
    """Matmul and softmax: SDPA's CPU backward is slower on thousands of short rows."""
    for module in transformer.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())

"""Training of the world's video-text model: contrastive and matching, with hard negatives.

Negatives are captions with one attribute changed, and clips whose motion is spoilt (frozen,
reversed, shuffled, jumping): what a weak base model gets wrong. The judge has no part in it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from kinobeam.world.autoencoder import decode_latents, encode_videos
from kinobeam.world.clips import draw_captions, draw_clips, draw_seeds
from kinobeam.world.config import WorldRecipe
from kinobeam.world.loop import num_processes, train_stage
from kinobeam.world.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene
from kinobeam.world.text import build_tokenizer
from kinobeam.world.video_text import VideoTextConfig, VideoTextModel

_CHOICES = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS}
_SPOILT = "spoilt"
_CLASSES = {**_CHOICES, "motion": (*MOTIONS, _SPOILT), "background": BACKGROUNDS}
_MOVING = frozenset(MOTIONS) - {"still"}
_JUMP = 0.12


def build_video_text_model(recipe: WorldRecipe) -> VideoTextModel:
    """A video-text model with random weights."""
    tokenizer = build_tokenizer()
    config = VideoTextConfig(
        vocab_size=len(tokenizer),
        size=recipe.size,
        num_frames=recipe.num_frames,
        width=recipe.reward_width,
        num_video_layers=recipe.reward_video_layers,
        num_fusion_layers=recipe.reward_fusion_layers,
        max_caption_tokens=recipe.max_caption_tokens,
    )
    return VideoTextModel(config, tokenizer)


class _Pupil(nn.Module):
    """The video-text model with heads that name a clip's attributes, in training only.

    Matching alone gives one bit a pair; naming attributes teaches the video tower what to look at.
    """

    def __init__(self, model: VideoTextModel) -> None:
        super().__init__()
        self.model = model
        width = model.config.width
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, len(values)) for name, values in _CLASSES.items()}
        )


class _Batch(NamedTuple):
    """N clips with right and wrong captions, and M of them again with spoilt motion."""

    videos: Tensor
    captions: list[str]
    wrong_captions: list[str]
    spoilt: Tensor
    spoilt_rows: list[int]
    classes: dict[str, Tensor]


def train_reward(recipe: WorldRecipe, vae: AutoencoderKL, folder: Path) -> VideoTextModel:
    """Train by in-batch contrast, matching against hard negatives, and spoilt clips."""

    def loss_fn(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, _Pupil)
        batch = _draw_batch(vae, recipe, generator)
        with torch.autocast("cpu", torch.bfloat16):
            return _losses(model, batch)

    torch.manual_seed(recipe.seed)
    pupil = _Pupil(build_video_text_model(recipe))
    trained = train_stage("reward", pupil, loss_fn, recipe.reward, folder)
    assert isinstance(trained, _Pupil)
    return trained.model


def _draw_batch(vae: AutoencoderKL, recipe: WorldRecipe, generator: torch.Generator) -> _Batch:
    seeds = draw_seeds(recipe.reward.batch_size // num_processes(), generator)
    scenes, clean = draw_clips(recipe, seeds)
    videos = degrade(vae, clean, generator)
    captions = draw_captions(scenes, generator)
    changed = [
        change_one_attribute(scene, random.Random(seed))
        for scene, seed in zip(scenes, seeds, strict=True)
    ]
    moving = [row for row, scene in enumerate(scenes) if scene.main.motion in _MOVING]
    rows = moving[: len(scenes) // 2]
    spoilt = spoil_motion(videos[rows], generator)
    classes = {
        name: torch.tensor([values.index(_attribute(scene, name)) for scene in scenes])
        for name, values in _CLASSES.items()
    }
    return _Batch(videos, captions, draw_captions(changed, generator), spoilt, rows, classes)


def _attribute(scene: Scene, name: str) -> str:
    value: str = scene.background if name == "background" else getattr(scene.main, name)
    return value


def _losses(pupil: _Pupil, batch: _Batch) -> dict[str, Tensor]:
    model, count, rows = pupil.model, len(batch.videos), batch.spoilt_rows
    video = model.encode_video(torch.cat([batch.videos, batch.spoilt]))
    text, mask = model.encode_text(batch.captions + batch.wrong_captions)
    similar = model.project_video(video[:count]) @ model.project_text(text).T
    logits = similar.float() * model.log_temperature.exp()
    own = torch.arange(count)
    contrast = functional.cross_entropy(logits, own)
    contrast = contrast + functional.cross_entropy(logits.T[:count], own)
    match = model.match(
        torch.cat([video[:count], video[:count], video[count:]]),
        torch.cat([text, text[rows]]),
        torch.cat([mask, mask[rows]]),
    ).float()
    truth = (torch.arange(len(match)) < count).float()
    matching = functional.binary_cross_entropy_with_logits(match, truth)
    naming = _naming_loss(pupil, video.mean(1), batch)
    correct = ((match > 0) == truth.bool()).float().mean()
    loss = matching + 0.25 * contrast + 0.5 * naming
    parts = {"matching": matching, "contrast": contrast, "naming": naming, "correct": correct}
    return {"loss": loss, **parts}


def _naming_loss(pupil: _Pupil, pooled: Tensor, batch: _Batch) -> Tensor:
    """Mean cross-entropy of the attributes; the motion of a spoilt clip is "spoilt"."""
    count, rows = len(batch.videos), batch.spoilt_rows
    losses = []
    for name, values in _CLASSES.items():
        again = batch.classes[name][rows]
        if name == "motion":
            again = torch.full_like(again, values.index(_SPOILT))
        logits = pupil.heads[name](pooled).float()
        losses.append(functional.cross_entropy(logits, torch.cat([batch.classes[name], again])))
    assert len(pooled) == count + len(rows)
    return torch.stack(losses).mean()


def change_one_attribute(scene: Scene, rng: random.Random) -> Scene:
    """The scene with exactly one attribute of its first object, or its background, changed."""
    first = scene.main
    names = ["colour", "shape", "motion", "motion", "background"]
    while True:
        name = rng.choice(names)
        if name == "background":
            return replace(
                scene, background=rng.choice([b for b in BACKGROUNDS if b != scene.background])
            )
        value = rng.choice([c for c in _CHOICES[name] if c != getattr(first, name)])
        try:
            return replace(scene, objects=(replace(first, **{name: value}), *scene.objects[1:]))
        except ValueError:  # a circle cannot spin: draw again
            continue


@torch.no_grad()
def degrade(vae: AutoencoderKL, videos: Tensor, generator: torch.Generator) -> Tensor:
    """Make half of the clips (N, 3, F, H, W) look decoded: noisy latents, some blur.

    Scores must hold on clean clips and on estimates in mid-sampling alike.
    """
    half = videos[: len(videos) // 2]
    with torch.autocast("cpu", torch.bfloat16):
        latents = encode_videos(vae, half)
        strength = torch.rand(len(half), 1, 1, 1, 1, generator=generator) * 0.4
        latents = latents + strength * torch.randn(latents.shape, generator=generator)
        decoded = decode_latents(vae, latents).float()
    blurred = functional.avg_pool3d(
        decoded, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False
    )
    amount = (torch.rand(len(half), 1, 1, 1, 1, generator=generator) * 2 - 1).clamp(min=0)
    return torch.cat([torch.lerp(decoded, blurred, amount), videos[len(half) :]])


def spoil_motion(videos: Tensor, generator: torch.Generator) -> Tensor:
    """Clips of moving objects whose motion is wrong: frozen, reversed, shuffled, or jumping."""
    num_frames, size = videos.shape[2], videos.shape[-1]
    still = torch.randint(num_frames, (1,), generator=generator).expand(num_frames)
    orders = [
        still,
        torch.arange(num_frames - 1, -1, -1),
        torch.randperm(num_frames, generator=generator),
    ]
    kinds = torch.randint(4, (len(videos),), generator=generator).tolist()
    reach = max(int(_JUMP * size), 1)
    result = []
    for video, kind in zip(videos, kinds, strict=True):
        if kind < len(orders):
            result.append(video[:, orders[kind]])
            continue
        shifts = torch.randint(-reach, reach + 1, (num_frames, 2), generator=generator).tolist()
        frames = [torch.roll(video[:, f], (dy, dx), (1, 2)) for f, (dy, dx) in enumerate(shifts)]
        result.append(torch.stack(frames, 1))
    return torch.stack(result) if result else videos

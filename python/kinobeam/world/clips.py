"""Training data of the world: clips with captions, drawn by seed."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from kinobeam.world.config import WorldRecipe
from kinobeam.world.render import render
from kinobeam.world.scenes import NUM_PARAPHRASES, Scene, caption, sample_scene

_LARGEST_SEED = 2**62


def draw_seeds(count: int, generator: torch.Generator) -> list[int]:
    """`count` seeds from a torch generator."""
    seeds: list[int] = torch.randint(_LARGEST_SEED, (count,), generator=generator).tolist()
    return seeds


def draw_scenes(seeds: list[int], **scene_options: bool) -> list[Scene]:
    """One training scene per seed."""
    return [sample_scene(random.Random(seed), **scene_options) for seed in seeds]


def draw_clips(
    recipe: WorldRecipe, seeds: list[int], **scene_options: bool
) -> tuple[list[Scene], Tensor]:
    """One training scene and its clip (N, 3, F, H, W) per seed."""
    scenes = draw_scenes(seeds, **scene_options)
    return scenes, render(scenes, num_frames=recipe.num_frames, size=recipe.size, seeds=seeds)


def draw_captions(scenes: list[Scene], generator: torch.Generator) -> list[str]:
    """A caption of each scene, in random words."""
    words = torch.randint(NUM_PARAPHRASES, (len(scenes),), generator=generator).tolist()
    return [caption(scene, word) for scene, word in zip(scenes, words, strict=True)]

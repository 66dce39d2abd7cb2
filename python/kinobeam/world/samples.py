"""A picture of what a model draws: one row per caption, one column per frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from kinobeam.pipeline import Engine
from kinobeam.world.config import WorldRecipe
from kinobeam.world.scenes import prompt_set

_NUM_ROWS = 18
_ZOOM = 3


def write_samples(pipe: Any, recipe: WorldRecipe, path: Path) -> Sequence[str]:
    """Sample training captions of every motion, write them as one PNG, and return the captions."""
    captions = prompt_set("all", _NUM_ROWS, held_out=False)
    out = Engine.from_pipe(pipe)(
        captions,
        seed=list(range(len(captions))),
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
    )
    contact_sheet(out.frames).save(path)
    return captions


def contact_sheet(frames: Tensor, zoom: int = _ZOOM) -> Image.Image:
    """Videos (N, F, 3, H, W) in [0, 1] as one picture, N rows of F frames."""
    count, num_frames, _, height, width = frames.shape
    sheet = frames.permute(0, 3, 1, 4, 2).reshape(count * height, num_frames * width, 3)
    picture = Image.fromarray((sheet * 255).round().byte().cpu().numpy())
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)

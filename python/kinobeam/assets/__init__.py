"""Files that ship with Kinobeam."""

from pathlib import Path

WORLD_LATTE = Path(__file__).parent / "world-latte"
"""A `diffusers.LattePipeline` folder: the world's base model, and its reward in `reward/`."""

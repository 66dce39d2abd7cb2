"""`kinobeam world train`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kinobeam.world.config import WorldRecipe


def _processes() -> int:
    """As many as there are cores, such that they share every batch evenly."""
    recipe = WorldRecipe()
    sizes = [stage.batch_size for stage in (recipe.vae, recipe.base, recipe.reward)]
    cores = os.cpu_count() or 1
    return max(n for n in range(1, cores + 1) if all(size % n == 0 for size in sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Train the world's autoencoder, base model and reward from nothing (hours on two cores).

    A run that was cut goes on where it stopped. Use the result with `--model`.

    Args:
        work_folder: checkpoints and training curves.
        model_folder: the finished model; replaced only when everything is trained.
        num_processes: CPU processes that share the work.
    """

    work_folder: Path = Path("out/world")
    model_folder: Path = Path("out/world-latte")
    num_processes: int = field(default_factory=_processes)


def run(config: TrainConfig) -> None:
    """Train and write the model folder."""
    _check(config)
    from kinobeam.world.train import train_in_processes

    train_in_processes(WorldRecipe(), config.work_folder, config.model_folder, config.num_processes)
    print(config.model_folder)


def _check(config: TrainConfig) -> None:
    """The model folder is replaced at the end: it must be a model, or nothing."""
    if config.num_processes < 1:
        raise ValueError(f"num_processes: expected at least 1, got {config.num_processes}")
    folder = config.model_folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise ValueError(
            f"model_folder: {str(folder)!r} holds something else than a model and would be "
            "replaced; name a new folder"
        )

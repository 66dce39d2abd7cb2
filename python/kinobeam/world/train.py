"""`kinobeam world train`: from nothing to the model folder that Kinobeam ships."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, LattePipeline

from kinobeam.processes import take_cores
from kinobeam.world.autoencoder import train_vae
from kinobeam.world.base_model import train_base
from kinobeam.world.config import WorldRecipe
from kinobeam.world.loop import is_main_process, wait_for_everyone
from kinobeam.world.reward_model import train_reward
from kinobeam.world.samples import write_samples
from kinobeam.world.video_text import VideoTextModel

MODEL_CARD = "kinobeam.json"


def train_world(recipe: WorldRecipe, work_folder: Path, model_folder: Path) -> None:
    """Train autoencoder, base model and reward model, and write the folder that ships.

    A run that was cut goes on where it stopped. `model_folder` is replaced only when all is done.

    Args:
        recipe: sizes and budgets.
        work_folder: checkpoints, curves (`*.jsonl`) and a picture of samples.
        model_folder: a `LattePipeline` folder with `reward/` and `kinobeam.json` beside its parts.
    """
    work_folder.mkdir(parents=True, exist_ok=True)
    vae = _stage_vae(recipe, work_folder)
    pipeline = train_base(recipe, vae, work_folder)
    if is_main_process():
        write_samples(pipeline, recipe, work_folder / "samples.png")
    reward = train_reward(recipe, vae, work_folder)
    if is_main_process():
        save_model_folder(pipeline, reward, recipe, model_folder)
    wait_for_everyone()


def _stage_vae(recipe: WorldRecipe, folder: Path) -> AutoencoderKL:
    done = folder / "vae"
    if not done.exists():
        vae = train_vae(recipe, folder)
        if is_main_process():
            partial = folder / "vae.partial"
            vae.save_pretrained(partial)
            partial.rename(done)
    wait_for_everyone()
    vae = AutoencoderKL.from_pretrained(done)
    vae.register_to_config(_name_or_path="")  # else the folder that ships names this machine's
    return vae.requires_grad_(False).eval()


def save_model_folder(
    pipeline: LattePipeline, reward: VideoTextModel, recipe: WorldRecipe, folder: Path
) -> None:
    """Write the pipeline in half precision, the reward beside it, and the declared defaults."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.vae.half()
    pipeline.transformer.half()
    pipeline.save_pretrained(partial)
    pipeline.vae.float()
    pipeline.transformer.float()
    reward.save_pretrained(partial / "reward")
    card = {
        "reward": {"name": "world", "folder": "reward"},
        "defaults": {
            "num_inference_steps": recipe.num_inference_steps,
            "guidance_scale": recipe.guidance_scale,
        },
    }
    (partial / MODEL_CARD).write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def train_in_processes(
    recipe: WorldRecipe, work_folder: Path, model_folder: Path, num_processes: int
) -> None:
    """`train_world` on `num_processes` CPU processes that share the cores."""
    for stage in (recipe.vae, recipe.base, recipe.reward):
        if num_processes < 1 or stage.batch_size % num_processes:
            raise ValueError(
                f"num_processes: expected a divisor of the batch size {stage.batch_size}, "
                f"got {num_processes}"
            )
    work_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (num_processes, f"file://{meeting}/store", recipe, work_folder, model_folder)
        torch.multiprocessing.spawn(_worker, arguments, nprocs=num_processes)


def _worker(
    rank: int, size: int, meeting: str, recipe: WorldRecipe, work_folder: Path, model_folder: Path
) -> None:
    take_cores(rank, size)
    torch.set_float32_matmul_precision("medium")
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    train_world(recipe, work_folder, model_folder)
    dist.destroy_process_group()

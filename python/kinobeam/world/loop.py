"""The training loop that every model of the world shares: exact resume, EMA, a curve on disk.

With several processes each draws its own share of the batch, and gradients are averaged. On a CPU,
processes of one thread each beat one process of many threads, which wait for each other at every
loop.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from kinobeam.world.config import StageRecipe

CHECKPOINT_EVERY = 200
LossFn = Callable[[nn.Module, torch.Generator], dict[str, Tensor]]
"""(model, generator of this step) -> named scalars; the one named `loss` is minimised."""


def train_stage(
    name: str, model: nn.Module, loss_fn: LossFn, recipe: StageRecipe, folder: Path
) -> nn.Module:
    """Train `model` and return its exponential moving average.

    Every step draws from a generator seeded by step and rank alone, so a run that was cut and
    resumed from `folder/{name}.pt` ends with the same weights as an uninterrupted one.

    Args:
        name: names the checkpoint and the curve `folder/{name}.jsonl`.
        model: trained in place.
        loss_fn: computes the losses of one step.
        recipe: steps, batch size and optimiser settings.
        folder: where checkpoints and curves go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = folder / f"{name}.pt", folder / f"{name}.jsonl"
    ema = copy.deepcopy(model).requires_grad_(False)
    optimizers = _optimizers(model, recipe)
    start = _resume(checkpoint, model, ema, optimizers)
    steps: Iterable[int] = range(start, recipe.num_steps)
    if is_main_process():
        _cut_curve(curve, start)
        steps = _progress(name, start, recipe.num_steps, curve)
    for step in steps:
        generator = torch.Generator().manual_seed(step * num_processes() + process_rank())
        losses = loss_fn(model, generator)
        losses["loss"].backward()
        _average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(step)
            optimizer.step()
            optimizer.zero_grad()
        _update_ema(ema, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if step % 20 == 0 and is_main_process():
            _append(curve, {"step": step, **{k: v.item() for k, v in losses.items()}})
        last = step + 1 == recipe.num_steps
        if is_main_process() and (last or (step + 1) % CHECKPOINT_EVERY == 0):
            _save(checkpoint, step + 1, model, ema, optimizers)
    return ema.eval()


def num_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    return process_rank() == 0


def wait_for_everyone() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _average_gradients(model: nn.Module) -> None:
    if num_processes() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= num_processes()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class _Muon(torch.optim.Muon):
    """Muon for matrices and, seen as matrices (out, in * kh * kw), for convolutions."""

    def __init__(self, weights: list[nn.Parameter], **settings: Any) -> None:
        self._weights = weights
        super().__init__([nn.Parameter(w.data.flatten(1)) for w in weights], **settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for view, weight in zip(self.param_groups[0]["params"], self._weights, strict=True):
            assert weight.grad is not None and view.data_ptr() == weight.data_ptr()
            view.grad = weight.grad.flatten(1)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self._weights:
            weight.grad = None


def _optimizers(model: nn.Module, recipe: StageRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and convolutions of blocks, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_block = parameter.ndim in (2, 4) and "block" in name and "table" not in name
        (matrices if in_block else others).append(parameter)
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    result: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.98), **settings)]
    if matrices:
        result.append(_Muon(matrices, adjust_lr_fn="match_rms_adamw", **settings))
    return result


@torch.no_grad()
def _update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for average, value in zip(ema.parameters(), model.parameters(), strict=True):
        average.lerp_(value, 1 - decay)


def _save(path: Path, step: int, model: nn.Module, ema: nn.Module, optimizers: list[Any]) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
    }
    save_whole(state, path)


def save_whole(value: Any, path: Path) -> None:
    """`torch.save` that leaves either the whole file or the one before."""
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)


def _resume(path: Path, model: nn.Module, ema: nn.Module, optimizers: list[Any]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def _cut_curve(path: Path, start: int) -> None:
    """Drop the rows that steps after the checkpoint had written: they will be written again."""
    if path.exists():
        whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
        rows = [line for line in whole if json.loads(line)["step"] < start]
        path.write_text("".join(f"{row}\n" for row in rows))


def _append(path: Path, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")


def _progress(name: str, start: int, stop: int, curve: Path) -> Iterator[int]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(f"{name} ({curve})", total=stop, completed=start)
        for step in range(start, stop):
            yield step
            progress.advance(task)

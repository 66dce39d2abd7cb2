"""`kinobeam world evaluate`: plain samples of held-out captions before the judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from kinobeam.assets import WORLD_LATTE
from kinobeam.pipeline import Engine
from kinobeam.world.judge import Verdict, accuracy, judge
from kinobeam.world.scenes import prompt_set

_BATCH = 8


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What to sample."""

    model: Path = WORLD_LATTE
    """Pipeline folder."""
    num_prompts: int = 200
    """Captions, of combinations that training never saw unless `trained_prompts`."""
    trained_prompts: bool = False
    """Use captions that training has seen."""
    num_inference_steps: int | None = None
    """Default: what the folder declares."""
    guidance_scale: float | None = None
    """Default: what the folder declares."""
    eta: float | None = None
    """Noise of a step; default 0."""
    output: Path = Path("out/evaluate.json")
    """Where the figures go."""


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Sample, judge, print, and write the figures; the seed of a caption is its number."""
    engine = Engine.from_pretrained(config.model)
    prompts = prompt_set("all", config.num_prompts, held_out=not config.trained_prompts)
    verdicts: list[Verdict] = []
    rewards: list[float] = []
    for start in track(range(0, len(prompts), _BATCH), "plain samples"):
        batch = prompts[start : start + _BATCH]
        out = engine(
            batch,
            seed=list(range(start, start + len(batch))),
            reward=engine.reward,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            eta=config.eta,
            micro_batch=_BATCH,
        )
        verdicts += judge(out.frames.transpose(1, 2), batch)
        rewards += [] if out.rewards is None else out.rewards.tolist()
    figures = summarise(verdicts, rewards)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(json.dumps(figures, indent=2) + "\n")
    Console().print_json(json.dumps(figures))
    return figures


def summarise(verdicts: Sequence[Verdict], rewards: Sequence[float]) -> dict[str, Any]:
    """Accuracies, rates of defects, and Pearson's r of the reward with the judge."""
    names = verdicts[0].defects
    figures: dict[str, Any] = {
        "count": len(verdicts),
        "accuracy": {k: round(v, 4) for k, v in accuracy(verdicts).items()},
        "defects": {
            n: round(sum(v.defects[n] for v in verdicts) / len(verdicts), 4) for n in names
        },
    }
    if rewards:
        right = [sum(v.attributes.values()) / len(v.attributes) for v in verdicts]
        every = [float(v.all_correct) for v in verdicts]
        figures["reward"] = {
            "mean": round(sum(rewards) / len(rewards), 4),
            "pearson_with_share_of_right_attributes": _pearson(rewards, right),
            "pearson_with_all_right": _pearson(rewards, every),
        }
    return figures


def _pearson(first: Sequence[float], second: Sequence[float]) -> float:
    table = torch.tensor([list(first), list(second)], dtype=torch.float64)
    return round(torch.corrcoef(table)[0, 1].item(), 4)

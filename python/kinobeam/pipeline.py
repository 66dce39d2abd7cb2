"""The engine that most people touch: a diffusers pipeline in, searched videos out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kinobeam.adapters import Adapted, adapt
from kinobeam.engine.config import SearchConfig
from kinobeam.engine.sampler import Models
from kinobeam.engine.schedules import Schedule
from kinobeam.engine.search.beam import Search
from kinobeam.engine.types import SearchStep
from kinobeam.outputs import GenerationMetrics, VideoPipelineOutput
from kinobeam.rewards import load_reward

MODEL_CARD = "kinobeam.json"
OUTPUT_TYPES = ("pt", "np", "pil", "latent")
_MAX_MICRO_BATCH = 8
_LARGEST_SEED = 2**63 - 1
RewardFn = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a call uses when it does not say."""

    num_inference_steps: int
    guidance_scale: float


class Engine:
    """Samples and searches videos with a diffusers text-to-video pipeline.

    Args:
        pipe: a loaded pipeline; weights are shared, the pipeline is not changed.
        reward: used by a search whose call names none.
        defaults: steps and guidance when a call does not say; the pipeline's own if None.
        micro_batch: latents per network call. Results are bit-identical for any mix of prompts,
            beams and candidates at an equal `micro_batch`, and within 1e-4 across values. Default:
            what a call needs, at most 8.

    Example:
        >>> import kinobeam
        >>> engine = kinobeam.Engine.from_pretrained(kinobeam.WORLD_LATTE)
        >>> out = engine("a red circle moves left", num_inference_steps=4, seed=0)
        >>> out.frames.shape
        torch.Size([1, 8, 3, 32, 32])
    """

    def __init__(
        self,
        pipe: Any,
        *,
        reward: RewardFn | None = None,
        defaults: Defaults | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self.pipe = pipe
        self._adapted: Adapted = adapt(pipe)
        self.reward = reward
        self.defaults = defaults or Defaults(
            self._adapted.num_inference_steps, self._adapted.guidance_scale
        )
        self.micro_batch = _checked_micro_batch(micro_batch)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        micro_batch: int | None = None,
    ) -> Engine:
        """Load a pipeline folder, or a repository of the hub, by diffusers.

        Args:
            folder_or_hub_id: a folder with `model_index.json`. A `kinobeam.json` beside it may
                declare a default reward and default settings.
            device: where to put it; the first CUDA device if there is one, else the CPU.
            dtype: of the weights; float32 by default.
            micro_batch: see the class.

        Raises:
            ValueError: the folder holds no pipeline, or a hub id that cannot be loaded.
            TypeError: a pipeline class without an adapter.
        """
        pipe = _load_pipeline(folder_or_hub_id, dtype or torch.float32)
        pipe.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        card = _read_card(Path(folder_or_hub_id))
        reward, defaults = None, None
        if "reward" in card:
            folder = Path(folder_or_hub_id) / card["reward"]["folder"]
            reward = load_reward(card["reward"]["name"], folder=folder)
            if hasattr(reward, "to"):
                reward.to(pipe.device)
        if "defaults" in card:
            defaults = Defaults(**card["defaults"])
        return cls(pipe, reward=reward, defaults=defaults, micro_batch=micro_batch)

    @classmethod
    def from_pipe(cls, pipe: Any, *, micro_batch: int | None = None) -> Engine:
        """Wrap a loaded diffusers pipeline; it declares no reward, so a search must name one."""
        return cls(pipe, micro_batch=micro_batch)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        search: SearchConfig | None = None,
        reward: RewardFn | None = None,
        output_type: str = "pt",
        micro_batch: int | None = None,
        on_step: Callable[[SearchStep], None] | None = None,
    ) -> VideoPipelineOutput:
        """Generate one video per prompt, searching if `search` says so.

        Args:
            prompt: a string, or G strings.
            negative_prompt: what guidance leads away from.
            num_inference_steps: sampling steps T.
            guidance_scale: classifier-free guidance; at 1 or below there is none.
            num_frames, height, width: must be the model's own where given.
            eta: noise of a DDIM step. Default 0 without candidates, 1 with several per beam.
            seed: one integer for every prompt, or one per prompt. Default: a random one.
            generator: draws the first latents exactly as the diffusers pipeline would; the noise of
                the steps then follows its initial seed.
            latents: (G, C, F, h, w) the first latents themselves.
            search: what to search; nothing by default.
            reward: `(videos (N, 3, F, H, W) in [0, 1], prompts) -> (N,)`, higher is better.
                Default: the one that the model folder declares.
            output_type: `"pt"`, `"np"`, `"pil"` or `"latent"`.
            micro_batch: for this call; see the class.
            on_step: told after every step: scores, survivors, scored estimates.

        Returns:
            frames, rewards, search_trace and metrics.

        Raises:
            TypeError, ValueError: an argument that does not fit, with what was expected; a reward
                that returns something else than one number per video.

        Notes:
            Beam 0 of a search starts from the noise of the plain sample of the same seed.
        """
        prompts = _checked_prompts(prompt)
        if not isinstance(negative_prompt, str):
            raise TypeError(f"negative_prompt: expected a string, got {negative_prompt!r}")
        if search is not None and not isinstance(search, SearchConfig):
            raise TypeError(f"search: expected a kinobeam.SearchConfig, got {search!r}")
        self._check_sizes(num_frames, height, width)
        if output_type not in OUTPUT_TYPES:
            raise ValueError(
                f"output_type: expected one of {', '.join(OUTPUT_TYPES)}; got {output_type!r}"
            )
        started = time.perf_counter()
        config = search or SearchConfig()
        chosen_reward = self._reward_for(config, reward)
        eta = _checked_eta(eta, config)
        seeds = _checked_seeds(seed, generator, len(prompts))
        steps = (
            self.defaults.num_inference_steps
            if num_inference_steps is None
            else num_inference_steps
        )
        scale = self.defaults.guidance_scale if guidance_scale is None else guidance_scale
        _check_number("guidance_scale", scale)
        rows = _checked_micro_batch(micro_batch) or self.micro_batch
        rows = rows or min(config.pool * len(prompts), _MAX_MICRO_BATCH)
        adapted = self._adapted
        models = Models(
            adapted.denoiser,
            adapted.decoder,
            chosen_reward,
            prompts=prompts,
            conditioning=adapted.denoiser.encode(prompts, [negative_prompt] * len(prompts)),
            guidance_scale=scale,
            micro_batch=rows,
        )
        schedule = Schedule.from_diffusers(adapted.scheduler, steps)
        first = self._first_latents(latents, generator, len(prompts))
        result = Search(models, schedule, config, eta=eta, observe=on_step).run(seeds, first)
        name = (
            None if chosen_reward is None else getattr(chosen_reward, "name", _name(chosen_reward))
        )
        metrics = GenerationMetrics(
            time.perf_counter() - started, seeds, eta, steps, scale, rows, name
        )
        content = result.latents_G if output_type == "latent" else result.videos_G
        return VideoPipelineOutput(
            _shape_frames(content, output_type), result.rewards_G, models.trace, metrics
        )

    def _reward_for(self, config: SearchConfig, reward: RewardFn | None) -> RewardFn | None:
        if reward is not None and not callable(reward):
            raise TypeError(
                f"reward: expected a callable, got {type(reward).__name__}; "
                "load one by name with kinobeam.load_reward"
            )
        if not config.scores:
            return reward
        chosen = reward or self.reward
        if chosen is None:
            raise ValueError(
                f"search {config.method!r} needs a reward: this model declares none; pass reward=, "
                "for example kinobeam.load_reward('world') or a callable (videos, prompts) -> (N,)"
            )
        return chosen

    def _check_sizes(self, num_frames: int | None, height: int | None, width: int | None) -> None:
        asked = {"num_frames": num_frames, "height": height, "width": width}
        for name, value in asked.items():
            own = getattr(self._adapted, name)
            if value is not None and value != own:
                raise ValueError(f"{name}: expected {own}, the model's own, got {value}")

    def _first_latents(
        self, latents: Tensor | None, generator: torch.Generator | None, count: int
    ) -> Tensor | None:
        shape = (count, *self._adapted.denoiser.latent_shape)
        device = self.pipe.device
        if latents is not None:
            if generator is not None:
                raise ValueError("latents: got a generator too; give one of the two")
            if not isinstance(latents, Tensor):
                raise TypeError(f"latents: expected a tensor, got {type(latents).__name__}")
            if tuple(latents.shape) != shape:
                raise ValueError(f"latents: expected shape {shape}, got {tuple(latents.shape)}")
            return latents.to(device, torch.float32)
        if generator is None:
            return None
        drawn = torch.randn(shape, generator=generator, device=generator.device)
        return drawn.to(device)


def _name(reward: RewardFn) -> str:
    return getattr(reward, "__name__", type(reward).__name__)


def _load_pipeline(source: str | Path, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    folder = Path(source)
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise ValueError(
            f"model: expected a diffusers pipeline folder, but {folder} has no model_index.json; "
            "name the folder that save_pretrained wrote"
        )
    try:
        return DiffusionPipeline.from_pretrained(str(source), dtype=dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"model: expected a diffusers pipeline folder or a hub id, could not load "
            f"{str(source)!r}: {error}"
        ) from error


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_CARD
    if not path.is_file():
        return {}
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"model: expected JSON in {path}: {error}") from error
    return card


def _checked_prompts(prompt: str | Sequence[str]) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        raise TypeError(f"prompt: expected a string or a list of strings, got {prompt!r}")
    if not prompts or not all(p.strip() for p in prompts):
        raise ValueError(f"prompt: expected text, got {prompt!r}")
    return list(prompts)


def _checked_eta(eta: float | None, config: SearchConfig) -> float:
    if eta is None:
        return 1.0 if config.candidates > 1 else 0.0
    _check_number("eta", eta)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 to 1, got {eta}")
    return eta


def _checked_seeds(
    seed: int | Sequence[int] | None, generator: torch.Generator | None, count: int
) -> list[int]:
    if seed is not None and generator is not None:
        raise ValueError("seed: got a generator too; give one of the two")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator, got {generator!r}")
        return [generator.initial_seed() % _LARGEST_SEED] * count
    if seed is None:
        return [int(torch.randint(_LARGEST_SEED, (1,)).item())] * count
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    if len(seeds) != count or not all(_is_seed(s) for s in seeds):
        raise ValueError(
            f"seed: expected one integer from 0 to 2^63 - 1, or {count} of them, got {seed!r}"
        )
    return seeds


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SEED


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def _checked_micro_batch(micro_batch: int | None) -> int | None:
    if micro_batch is None:
        return None
    if isinstance(micro_batch, bool) or not isinstance(micro_batch, int):
        raise TypeError(f"micro_batch: expected an integer, got {micro_batch!r}")
    if micro_batch < 1:
        raise ValueError(f"micro_batch: expected at least 1, got {micro_batch}")
    return micro_batch


def _shape_frames(content: Tensor, output_type: str) -> Any:
    if output_type == "latent":
        return content
    videos = content.transpose(1, 2)
    if output_type == "pt":
        return videos
    arrays: np.ndarray[Any, Any] = videos.permute(0, 1, 3, 4, 2).cpu().numpy()
    if output_type == "np":
        return arrays
    return [[Image.fromarray((frame * 255).round().astype("uint8")) for frame in v] for v in arrays]

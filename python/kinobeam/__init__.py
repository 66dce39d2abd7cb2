"""Search over latents and reward training for text-to-video diffusion models. Names load lazily."""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    "Engine": "kinobeam.pipeline",
    "SearchConfig": "kinobeam.engine.config",
    "SearchTrace": "kinobeam.engine.types",
    "SearchStep": "kinobeam.engine.types",
    "RewardOutput": "kinobeam.engine.types",
    "VideoPipelineOutput": "kinobeam.outputs",
    "load_reward": "kinobeam.rewards",
    "WORLD_LATTE": "kinobeam.assets",
    "beam_expand": "kinobeam.kernels.beam",
    "beam_prune": "kinobeam.kernels.beam",
    "counter_normal": "kinobeam.kernels.beam",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'kinobeam' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})

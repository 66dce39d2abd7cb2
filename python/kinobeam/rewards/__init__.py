"""Rewards: what a search or a trainer makes larger; one file per family."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

_NAMES = ("world",)


def load_reward(name: str, *, folder: str | Path | None = None) -> Any:
    """Load a reward by name.

    Args:
        name: `"world"` (the embedded video-text model), or `"package.module:function"` for a
            callable `(videos (N, 3, F, H, W) in [0, 1], prompts, **columns) -> (N,)` of your own.
        folder: where the weights of a named reward lie; by default the embedded ones.

    Returns:
        The reward: higher scores are better.

    Raises:
        ValueError: an unknown name, or a module or function that is not there.

    Example:
        >>> load_reward("operator:add")(1, 2)
        3
    """
    if name == "world":
        from kinobeam.rewards.world import WorldReward

        return WorldReward.from_pretrained(folder)
    if isinstance(name, str) and ":" in name:
        return _load_function(name)
    raise ValueError(
        f"reward: expected one of {', '.join(_NAMES)} or 'package.module:function', got {name!r}"
    )


def _load_function(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        reward = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward {name!r}: {error}") from error
    if not callable(reward):
        raise ValueError(f"reward {name!r}: expected a callable, got {type(reward).__name__}")
    return reward

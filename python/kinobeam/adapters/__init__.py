"""Model families of diffusers, each behind the engine's Protocols; one file per family."""

from __future__ import annotations

from typing import Any, NamedTuple

from kinobeam.engine.types import Decoder, Denoiser


class Adapted(NamedTuple):
    """A pipeline as the engine sees it, with the defaults of its own `__call__`."""

    denoiser: Denoiser
    decoder: Decoder
    scheduler: Any
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float


def adapt(pipe: Any) -> Adapted:
    """Wrap a loaded diffusers pipeline; weights are shared, nothing is changed.

    Raises:
        TypeError: no adapter for this pipeline class.
    """
    from kinobeam.adapters.latte import adapt_latte

    adapters = {"LattePipeline": adapt_latte}
    name = type(pipe).__name__
    if name not in adapters:
        raise TypeError(f"pipeline: expected one of {', '.join(adapters)}; got {name}")
    return adapters[name](pipe)

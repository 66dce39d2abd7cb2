"""`kinobeam info`: what runs here, and why the rest does not."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PACKAGES = (
    "torch",
    "triton",
    "diffusers",
    "transformers",
    "numpy",
    "av",
    "tyro",
    "rich",
    "jinja2",
)


@dataclass(frozen=True, slots=True)
class InfoConfig:
    """Print versions, devices, and which backend of each kernel runs here, and why not others."""


def run(config: InfoConfig) -> None:
    """Print the table."""
    print("\n".join(lines()))


def lines() -> Iterator[str]:
    """The lines that `kinobeam info` prints."""
    yield "versions"
    yield from (f"  {name:<13} {version}" for name, version in versions().items())
    yield from ("", "devices")
    yield from (f"  {line}" for line in _devices())
    yield from ("", "kernels (the first that does not refuse runs)")
    for device in _device_names():
        for operator, reasons in refusals(device).items():
            yield from _kernel_lines(f"{operator} on {device}", reasons)
    yield from ("", "environment")
    yield from (f"  {line}" for line in _environment())


def versions() -> dict[str, str]:
    """Of Kinobeam, Python and the packages it stands on."""
    from kinobeam import __version__

    found = {"kinobeam": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def refusals(device: str) -> dict[str, dict[str, str | None]]:
    """Operator -> backend -> why it refuses small tensors on `device`; None: it would run."""
    import torch

    from kinobeam.kernels import _dispatch
    from kinobeam.kernels.beam import api, noise

    keys = torch.zeros(1, dtype=torch.int64, device=device)
    steps = torch.zeros((), dtype=torch.int64, device=device)
    scores = torch.zeros(1, 2, device=device)
    cases: dict[str, tuple[tuple[_dispatch.Backend, ...], tuple[Any, ...]]] = {
        "beam_prune": (api._BEAM_PRUNE, (scores, (scores,), 1)),
        "counter_normal": (noise._COUNTER_NORMAL, (keys, steps, (4,), torch.float32)),
        "root_keys": (noise._ROOT_KEYS, (keys, 1)),
        "child_keys": (noise._CHILD_KEYS, (keys, keys, steps)),
    }
    return {name: _dispatch.refusals(table, *args) for name, (table, args) in cases.items()}


def _kernel_lines(operator: str, reasons: dict[str, str | None]) -> Iterator[str]:
    yield f"  {operator}"
    chosen = _chosen(reasons)
    for name, reason in reasons.items():
        state = "refuses: " + reason if reason else "runs" if name == chosen else "would run"
        yield f"    {name:<11} {state}"


def _chosen(reasons: dict[str, str | None]) -> str | None:
    """What runs when a call names no backend: KINOBEAM_BACKEND, or the first that takes it."""
    from kinobeam.kernels import _env

    asked = _env.BACKEND.get()
    if asked != "auto":
        return asked
    return next((name for name, reason in reasons.items() if reason is None), None)


def _device_names() -> list[str]:
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _devices() -> Iterator[str]:
    import torch

    from kinobeam.kernels import _native

    yield f"cpu: {platform.machine()}, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        gib = gpu.total_memory / 2**30
        yield f"cuda:{index}: {gpu.name}, sm_{gpu.major}{gpu.minor}, {gib:.0f} GiB"
    if not torch.cuda.is_available():
        yield "cuda: none that torch can see"
    yield f"native module: {_native.reason_unavailable() or 'loaded'}"


def _environment() -> Iterator[str]:
    from kinobeam.kernels import _env

    for variable in _env.ALL:
        yield f"{variable.name}={variable.get()}  ({variable.help})"

"""Loads kinobeam.kernels._C once, or keeps the reason why not.

torch is imported first: its wheels ship an OpenMP runtime under the plain SONAME libgomp.so.1,
which is also what _C asks for, so the loader gives _C the copy that torch already runs on. There is
one thread pool in the process, and torch.set_num_threads governs our loops too.
"""

import functools
import importlib
from types import ModuleType

import torch

from kinobeam.kernels import _env

ABI_VERSION = 1


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    if not _env.NATIVE.get():
        return None, "KINOBEAM_NATIVE=0"
    try:
        module = importlib.import_module("kinobeam.kernels._C")
    except ImportError as error:
        return (
            None,
            f"the native module did not load ({error}); "
            "reinstall kinobeam without KINOBEAM_SKIP_BUILD",
        )
    if module.abi_version() != ABI_VERSION:
        return None, (
            f"the native module is stale (ABI {module.abi_version()}, expected {ABI_VERSION}); "
            "reinstall kinobeam"
        )
    return module, None


def reason_unavailable() -> str | None:
    """None if the native module is loaded, otherwise why it is not."""
    return _load()[1]


def library() -> ModuleType:
    """The native module; callers ask `reason_unavailable` first."""
    module, reason = _load()
    if module is None:
        raise RuntimeError(f"kinobeam.kernels._C is not available: {reason}")
    return module


def check(status: int) -> None:
    """Turns a status of the C ABI into an exception; callers were validated before."""
    module = library()
    if status != module.KINOBEAM_OK:
        raise RuntimeError(f"kinobeam.kernels._C: status {status}: {module.status_string(status)}")


def refuse_tensors(*tensors: torch.Tensor) -> str | None:
    """Why the CPU library cannot take these tensors, or None."""
    if torch.compiler.is_compiling():
        return "torch.compile traces the reference instead"
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"it needs CPU tensors, got one on {tensor.device}"
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return f"it needs plain tensors, got {type(tensor).__name__}, which may own no memory"
    return reason_unavailable()

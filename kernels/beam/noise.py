"""Noise as a pure function of lineage: keys, the normals of a key, and the fan-out of beams."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kinobeam.kernels._dispatch import Backend, dispatch, never
from kinobeam.kernels.beam import native, reference

_ROOT_KEYS = (
    Backend("cpu", native.root_keys_cpu, native.refuse_root_keys),
    Backend("reference", reference.root_keys_reference, never),
)
_CHILD_KEYS = (
    Backend("cpu", native.child_keys_cpu, native.refuse_child_keys),
    Backend("reference", reference.child_keys_reference, never),
)
_COUNTER_NORMAL = (
    Backend("cpu", native.counter_normal_cpu, native.refuse_counter_normal),
    Backend("reference", reference.counter_normal_reference, never),
)
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def root_keys(
    seeds: Sequence[int] | Tensor,
    num_roots: int,
    *,
    device: torch.device | str | None = None,
    backend: str = "auto",
) -> Tensor:
    """The keys of the first `num_roots` roots (initial latents) of every seed.

    key[g, r] = the first two words of Philox4x32-10(key=seeds[g], counter=(r, 0, 0, "ROOT")), low
    word first.

    Args:
        seeds: G seeds, one per prompt: integers in [-2^63, 2^64), or a (G,) int64 tensor.
        num_roots: R, how many roots of each seed, 0 or more.
        device: where the keys are made; by default where `seeds` is, or the CPU.
        backend: "auto", "cpu" or "reference".

    Returns:
        (G, R) int64. The key of a root does not depend on G or R.

    Raises:
        TypeError: a seed is not an integer.
        ValueError: a seed is out of range, `num_roots` is negative, or the backend refuses.

    Notes:
        Bit-equal on every backend and device. No gradients.

    Source:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Example:
        >>> root_keys([7, 8], 4).shape
        torch.Size([2, 4])
        >>> bool((root_keys([8], 1) == root_keys([7, 8], 4)[1, :1]).all())
        True
    """
    if num_roots < 0 or num_roots > 2**32:
        raise ValueError(f"root_keys: expected num_roots in 0..2^32, got {num_roots}")
    if isinstance(seeds, Tensor):
        _expect_int64("root_keys", "seeds", seeds)
        if seeds.dim() != 1:
            raise ValueError(
                f"root_keys: expected seeds of shape (G,), got {tuple(seeds.shape)}; "
                "flatten them first"
            )
        seeds_G = seeds.to(device) if device is not None else seeds
    else:
        seeds_G = torch.tensor(
            [_signed_64(seed) for seed in seeds], dtype=torch.int64, device=device
        )
    return cast(Tensor, dispatch("root_keys", _ROOT_KEYS, backend, seeds_G, num_roots))


def child_keys(parent_keys: Tensor, ordinals: Tensor | int, step: int | Tensor) -> Tensor:
    """The keys of candidates: child `ordinals` of each parent at a denoising step.

    key = the first two words of Philox4x32-10(key=parent, counter=(ordinal, step, 0, "CHIL")), low
    word first.

    Args:
        parent_keys: (...) int64.
        ordinals: which child; int64, broadcasts with `parent_keys`. The low 32 bits count.
        step: the denoising step in [-1, 2^31), or an int64 tensor that broadcasts (it may live on
            the device, so that one captured graph serves every step; its range is then not
            checked). The low 32 bits count.

    Returns:
        int64, of the broadcast shape.

    Raises:
        TypeError: a tensor is not int64.
        ValueError: `step` is out of range.

    Notes:
        Bit-equal on every backend and device; a child's key knows its ancestors, not its slot. No
        gradients.

    Source:
        Salmon et al., SC 2011.

    Example:
        >>> child_keys(root_keys([7], 2)[:, :, None], torch.arange(3), step=0).shape
        torch.Size([1, 2, 3])
    """
    _expect_int64("child_keys", "parent_keys", parent_keys)
    if isinstance(ordinals, Tensor):
        _expect_int64("child_keys", "ordinals", ordinals)
    else:
        ordinals = torch.full((), ordinals, dtype=torch.int64, device=parent_keys.device)
    steps = _steps("child_keys", step, parent_keys)
    return cast(Tensor, dispatch("child_keys", _CHILD_KEYS, "auto", parent_keys, ordinals, steps))


def counter_normal(
    keys_N: Tensor,
    step: int | Tensor,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Standard normal noise that depends on (key, step, element) alone, never on the batch around
    it.

    Element e of a row (row-major in `shape`) comes from x = Philox4x32-10(key, counter=(lo(e//4),
    hi(e//4), step, "NOIS")). Each pair (x, y) of its words gives r cos(2 pi u2), r sin(2 pi u2)
    with u1 = ((x >> 8) + 1) 2^-24, u2 = (y >> 8) 2^-24, r = sqrt(-2 ln u1): elements 4i, 4i+1 from
    words 0, 1 and 4i+2, 4i+3 from words 2, 3.

    Args:
        keys_N: (N,) int64, from `root_keys` or `child_keys`.
        step: the denoising step in [-1, 2^31); -1 is the initial latent. Or an int64 tensor, () or
            (N,), whose low 32 bits count (it may live on the device; its range is not checked).
        shape: of one row; may be empty.
        dtype: float32, float64, float16 or bfloat16. float64 is exact Box-Muller; float16 and
            bfloat16 are the rounded float32 normals.
        backend: "auto", "cpu" or "reference".

    Returns:
        (N, *shape), contiguous.

    Raises:
        TypeError: `keys_N` or `step` is not int64, or `dtype` is not one of the four.
        ValueError: a wrong shape, `step` out of range, or the backend refuses.

    Notes:
        float32 normals are within 4e-6 absolute of float64 Box-Muller on every backend. On one
        backend a row's bits do not depend on N, on its place in the batch, or on the number of
        threads; the "cpu" backend gives the same bits on every processor. The largest magnitude is
        5.77. No gradients.

    Source:
        Box and Muller, Ann. Math. Stat. 29 (1958); Salmon et al., SC 2011.

    Example:
        >>> keys = root_keys([7], 4)[0]
        >>> noise = counter_normal(keys, -1, (4, 8, 8))
        >>> noise.shape, noise.dtype
        (torch.Size([4, 4, 8, 8]), torch.float32)
        >>> torch.equal(noise[2:3], counter_normal(keys[2:3], -1, (4, 8, 8)))
        True
    """
    _expect_int64("counter_normal", "keys_N", keys_N)
    if keys_N.dim() != 1:
        raise ValueError(
            f"counter_normal: expected keys_N of shape (N,), got {tuple(keys_N.shape)}; "
            "flatten them first"
        )
    if any(extent < 0 for extent in shape):
        raise ValueError(
            f"counter_normal: expected a shape without negative extents, got {tuple(shape)}"
        )
    if dtype not in _DTYPES:
        raise TypeError(
            f"counter_normal: expected dtype float32, float64, float16 or bfloat16, got {dtype}"
        )
    steps = _steps("counter_normal", step, keys_N)
    if steps.dim() and steps.shape != keys_N.shape:
        raise ValueError(
            f"counter_normal: expected step of shape () or {tuple(keys_N.shape)}, "
            f"got {tuple(steps.shape)}"
        )
    return cast(
        Tensor,
        dispatch("counter_normal", _COUNTER_NORMAL, backend, keys_N, steps, tuple(shape), dtype),
    )


def beam_expand(
    mean: Tensor,
    std: float | Tensor,
    keys_GB: Tensor,
    step: int | Tensor,
    num_candidates: int,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Fans every beam out into `num_candidates` noisy candidates.

    Candidate n = b*K + k has key child_keys(keys[b], k, step) and value mean[b] + std *
    counter_normal(key, step).

    Args:
        mean: (G, B, *shape), floating point: the mean of the step for every beam.
        std: the standard deviation: a number, or a tensor that broadcasts to `mean`.
        keys_GB: (G, B) int64, the keys of the beams.
        step: the denoising step in [-1, 2^31), or a 0-d int64 tensor (it may live on the device).
        num_candidates: K, 1 or more.
        backend: of `counter_normal`: "auto", "cpu" or "reference".

    Returns:
        candidates (G, B*K, *shape) of mean's dtype, and their keys (G, B*K) int64.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that do not fit, `num_candidates` below 1, or the backend refuses.

    Notes:
        The sum is taken in float32 (float64 for a float64 mean), then rounded to mean's dtype.
        Differentiable in `mean` and `std`; the noise is a constant.

    Source:
        Diffusion latent beam search's candidate step; the lineage keys are Kinobeam's.

    Example:
        >>> keys = root_keys([7, 8], 2)
        >>> latents, children = beam_expand(torch.zeros(2, 2, 4, 8, 8), 0.5, keys, 0, 3)
        >>> latents.shape, children.shape
        (torch.Size([2, 6, 4, 8, 8]), torch.Size([2, 6]))
    """
    if num_candidates < 1:
        raise ValueError(f"beam_expand: expected num_candidates of 1 or more, got {num_candidates}")
    if not mean.is_floating_point():
        raise TypeError(f"beam_expand: expected a floating-point mean, got {mean.dtype}")
    if mean.dim() < 2 or keys_GB.shape != mean.shape[:2]:
        raise ValueError(
            f"beam_expand: expected mean (G, B, ...) and keys_GB (G, B), "
            f"got {tuple(mean.shape)} and {tuple(keys_GB.shape)}"
        )
    groups, beams, *shape = mean.shape
    ordinals_K = torch.arange(num_candidates, device=mean.device)
    keys_GBK = child_keys(keys_GB[:, :, None], ordinals_K, step)
    compute = torch.float64 if mean.dtype == torch.float64 else torch.float32
    noise = counter_normal(keys_GBK.reshape(-1), step, tuple(shape), dtype=compute, backend=backend)
    noise = noise.reshape(groups, beams, num_candidates, *shape)
    if isinstance(std, Tensor):
        std = std.to(compute).expand(mean.shape)[:, :, None]
    # Not torch.add(alpha=...): a fused multiply-add rounds differently in a loop and in its tail.
    candidates = (mean[:, :, None].to(compute) + noise * std).to(mean.dtype)
    return candidates.reshape(groups, beams * num_candidates, *shape), keys_GBK.reshape(groups, -1)


def _expect_int64(operator: str, name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{operator}: expected {name} to be an int64 tensor, got {type(tensor).__name__}"
        )
    if tensor.dtype != torch.int64:
        raise TypeError(
            f"{operator}: expected {name} to be int64, got {tensor.dtype}; cast it with .long()"
        )


def _signed_64(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"root_keys: expected integer seeds, got {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(
            f"root_keys: expected seeds in [-2^63, 2^64), got {seed}; reduce it modulo 2^64"
        )
    return seed - 2**64 if seed >= 2**63 else seed


def _steps(operator: str, step: int | Tensor, like: Tensor) -> Tensor:
    if isinstance(step, Tensor):
        _expect_int64(operator, "step", step)
        return step
    if not -1 <= step < 2**31:
        raise ValueError(f"{operator}: expected step in [-1, 2^31), got {step}")
    return torch.full((), step, dtype=torch.int64, device=like.device)

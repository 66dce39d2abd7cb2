"""The beam operators on the CPU library: addresses in, status out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kinobeam.kernels._native import check, library, refuse_tensors
from kinobeam.kernels.beam.reference import BeamMap


def refuse_root_keys(seeds_G: Tensor, num_roots: int) -> str | None:
    return refuse_tensors(seeds_G)


def root_keys_cpu(seeds_G: Tensor, num_roots: int) -> Tensor:
    seeds_G = seeds_G.contiguous()
    keys_GR = torch.empty(seeds_G.shape[0], num_roots, dtype=torch.int64)
    check(library().root_keys_cpu(seeds_G.data_ptr(), *keys_GR.shape, keys_GR.data_ptr()))
    return keys_GR


def refuse_child_keys(parent_keys: Tensor, ordinals: Tensor, steps: Tensor) -> str | None:
    return refuse_tensors(parent_keys, ordinals, steps)


def child_keys_cpu(parent_keys: Tensor, ordinals: Tensor, steps: Tensor) -> Tensor:
    inputs = [t.contiguous() for t in torch.broadcast_tensors(parent_keys, ordinals, steps)]
    keys = torch.empty(inputs[0].shape, dtype=torch.int64)
    check(library().child_keys_cpu(*(t.data_ptr() for t in inputs), keys.numel(), keys.data_ptr()))
    return keys


def refuse_counter_normal(
    keys_N: Tensor, steps: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> str | None:
    if dtype == torch.float64:
        return "it computes in float32; float64 normals come from the reference"
    return refuse_tensors(keys_N, steps)


def counter_normal_cpu(
    keys_N: Tensor, steps: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    keys_N, steps = keys_N.contiguous(), steps.contiguous()
    out = torch.empty(keys_N.shape[0], *shape, dtype=torch.float32)
    rows, row_size = keys_N.shape[0], out[0].numel() if keys_N.shape[0] else 0
    check(
        library().counter_normal_cpu(
            keys_N.data_ptr(), steps.data_ptr(), steps.dim(), rows, row_size, out.data_ptr()
        )
    )
    return out.to(dtype)


def refuse_beam_prune(scores_GN: Tensor, state: Sequence[Tensor], num_beams: int) -> str | None:
    for place, tensor in enumerate(state):
        if tensor.numel() and not tensor[0, 0].is_contiguous():
            return f"it moves rows as bytes, and the rows of state[{place}] are not contiguous"
    return refuse_tensors(scores_GN, *state)


def beam_prune_cpu(scores_GN: Tensor, state: Sequence[Tensor], num_beams: int) -> BeamMap:
    scores_GN = scores_GN.contiguous()
    groups, pool = scores_GN.shape
    source_GB = torch.empty(groups, num_beams, dtype=torch.int64)
    rank_GB = torch.empty_like(source_GB)
    kept_GB = torch.empty(groups, num_beams, dtype=torch.float32)
    num_copied_G = torch.empty(groups, dtype=torch.int64)
    outputs = (source_GB, rank_GB, kept_GB, num_copied_G)
    check(
        library().beam_select_cpu(
            scores_GN.data_ptr(), groups, pool, num_beams, *(t.data_ptr() for t in outputs)
        )
    )
    tensors = [tensor for tensor in state if tensor.numel()]
    if tensors:
        rows = torch.tensor([_rows(tensor) for tensor in tensors], dtype=torch.int64)
        check(
            library().beam_move_cpu(
                source_GB.data_ptr(), groups, pool, num_beams, rows.data_ptr(), len(tensors)
            )
        )
    for tensor in tensors:
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
    return BeamMap(*outputs)


def _rows(tensor: Tensor) -> tuple[int, int, int, int]:
    """The kinobeam_rows of csrc/include/kinobeam.h."""
    size = tensor.element_size()
    group_stride, row_stride = (stride * size for stride in tensor.stride()[:2])
    return tensor.data_ptr(), group_stride, row_stride, tensor[0, 0].numel() * size

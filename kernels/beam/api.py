"""beam_prune: validation and dispatch."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kinobeam.kernels._dispatch import Backend, dispatch, never
from kinobeam.kernels.beam.native import beam_prune_cpu, refuse_beam_prune
from kinobeam.kernels.beam.reference import BeamMap, beam_prune_reference

_BEAM_PRUNE = (
    Backend("cpu", beam_prune_cpu, refuse_beam_prune),
    Backend("reference", beam_prune_reference, never),
)


@torch.no_grad()
def beam_prune(
    scores_GN: Tensor, state: Sequence[Tensor], *, num_beams: int, backend: str = "auto"
) -> BeamMap:
    """Keeps the `num_beams` best rows of every group and reorders the whole state in place.

    Survivors are the first B rows in the order of one 64-bit key: greater score first, then lower
    index. A survivor whose index is below B keeps its slot; the others, in index order, fill the
    dead slots in slot order: state[g, b] <- state[g, source[g, b]] for b < B. Rows from B on are
    left as they are.

    Args:
        scores_GN: (G, N) float32, N >= B; higher is better.
        state: tensors (G, N, ...) on the same device, of any dtype, changed in place.
        num_beams: B, 1 to N.
        backend: "auto", "cpu" (rows must be contiguous; dims 0 and 1 may have any stride) or
            "reference".

    Returns:
        BeamMap: source_GB, rank_GB (0 = best), scores_GB, num_copied_G.

    Raises:
        TypeError: scores that are not float32, or a state that is not a sequence of tensors.
        ValueError: shapes, devices or num_beams that do not fit, a state tensor that needs
            gradients or overlaps itself, or the backend refuses.

    Notes:
        Ties go to the lower index; -0 equals +0; NaN is below -inf. Maps and moved bytes are
        bit-equal on every backend. No source is ever a destination, so the copies may run in any
        order. No host synchronisation, no gradients.

    Source:
        Pruning of diffusion latent beam search; the stable-slot map is Kinobeam's.

    Example:
        >>> latents = torch.arange(4.0).reshape(1, 4, 1)
        >>> kept = beam_prune(torch.tensor([[0.1, 0.9, 0.5, 0.7]]), [latents], num_beams=2)
        >>> kept.source_GB.tolist(), kept.rank_GB.tolist(), latents[0, :2, 0].tolist()
        ([[3, 1]], [[1, 0]], [3.0, 1.0])
    """
    _validate(scores_GN, state, num_beams)
    return cast(
        BeamMap, dispatch("beam_prune", _BEAM_PRUNE, backend, scores_GN, tuple(state), num_beams)
    )


def _validate(scores_GN: Tensor, state: Sequence[Tensor], num_beams: int) -> None:
    if scores_GN.dtype != torch.float32:
        raise TypeError(
            f"beam_prune: expected float32 scores, got {scores_GN.dtype}; cast them with .float()"
        )
    if scores_GN.dim() != 2:
        raise ValueError(
            f"beam_prune: expected scores of shape (G, N), got {tuple(scores_GN.shape)}"
        )
    pool = scores_GN.shape[1]
    if not 1 <= num_beams <= pool:
        raise ValueError(
            f"beam_prune: expected num_beams in 1..{pool} (the pool of scores), got {num_beams}"
        )
    if isinstance(state, Tensor):
        raise TypeError(
            "beam_prune: expected a sequence of state tensors, got one tensor; pass [tensor]"
        )
    for place, tensor in enumerate(state):
        if tensor.shape[:2] != scores_GN.shape:
            raise ValueError(
                f"beam_prune: expected state[{place}] of shape (G, N, ...) = "
                f"{tuple(scores_GN.shape)} + (...), got {tuple(tensor.shape)}"
            )
        if tensor.device != scores_GN.device:
            raise ValueError(
                f"beam_prune: expected state[{place}] on {scores_GN.device} like the scores, "
                f"got {tensor.device}"
            )
        if tensor.requires_grad:
            raise ValueError(
                f"beam_prune: state[{place}] requires gradients and is changed in place; "
                "detach it first"
            )
        if any(
            size > 1 and stride == 0
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        ):
            raise ValueError(
                f"beam_prune: state[{place}] is expanded (stride 0), so its rows share memory; "
                "call .contiguous()"
            )

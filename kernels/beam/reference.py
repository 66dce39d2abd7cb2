"""The specification of the beam operators in plain PyTorch, for any device.

Shapes: G groups (prompts), N pool rows, B surviving beams, R roots. Words are 32-bit values held in
int64.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
TAG_ROOT, TAG_CHILD, TAG_NOISE = 0x524F4F54, 0x4348494C, 0x4E4F4953

Word = Tensor | int


class BeamMap(NamedTuple):
    """Where the survivors of a prune sit."""

    source_GB: Tensor
    """(G, B) int64: the pool index whose row now sits in slot b."""
    rank_GB: Tensor
    """(G, B) int64: the place of slot b's survivor in the order of scores; 0 is the best."""
    scores_GB: Tensor
    """(G, B) float32: the score of slot b's survivor."""
    num_copied_G: Tensor
    """(G,) int64: how many rows were moved, in each tensor of the state."""


def philox(
    keys: Tensor, counter: tuple[Word, Word, Word, Word]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of four counter words under 64-bit keys, low word first; all broadcast."""
    key0, key1 = keys & MASK, (keys >> 32) & MASK
    x0, x1, x2, x3 = (torch.as_tensor(word, device=keys.device) for word in counter)
    for _ in range(ROUNDS):
        p0, p1 = (
            x0 * MULTIPLIERS[0],
            x2 * MULTIPLIERS[1],
        )  # the low 64 bits of a wrapped product are right
        x0, x1 = ((p1 >> 32) & MASK) ^ x1 ^ key0, p1 & MASK
        x2, x3 = ((p0 >> 32) & MASK) ^ x3 ^ key1, p0 & MASK
        key0, key1 = (key0 + WEYL[0]) & MASK, (key1 + WEYL[1]) & MASK
    return x0, x1, x2, x3


def _key_of(words: tuple[Tensor, ...]) -> Tensor:
    return words[0] | (words[1] << 32)


def root_keys_reference(seeds_G: Tensor, num_roots: int) -> Tensor:
    roots_R = torch.arange(num_roots, device=seeds_G.device)
    return _key_of(philox(seeds_G[:, None], (roots_R, 0, 0, TAG_ROOT)))


def child_keys_reference(parent_keys: Tensor, ordinals: Tensor, steps: Tensor) -> Tensor:
    return _key_of(philox(parent_keys, (ordinals & MASK, steps & MASK, 0, TAG_CHILD)))


def counter_normal_reference(
    keys_N: Tensor, steps: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Box-Muller in float64 on 24-bit uniforms, then rounded to `dtype`."""
    size = math.prod(shape)
    blocks = torch.arange((size + 3) // 4, device=keys_N.device)
    steps_N1 = (steps & MASK).expand(keys_N.shape)[:, None]
    x0, x1, x2, x3 = philox(keys_N[:, None], (blocks & MASK, blocks >> 32, steps_N1, TAG_NOISE))
    pairs = []
    for x, y in ((x0, x1), (x2, x3)):
        u1 = ((x >> 8) + 1).double() * 2.0**-24
        u2 = (y >> 8).double() * 2.0**-24
        radius, angle = torch.sqrt(-2.0 * torch.log(u1)), 2.0 * math.pi * u2
        pairs += [radius * torch.cos(angle), radius * torch.sin(angle)]
    flat = torch.stack(pairs, dim=-1).flatten(1)[:, :size]
    return flat.to(dtype).reshape(keys_N.shape[0], *shape)


def order_keys(scores_GN: Tensor) -> Tensor:
    """Distinct int64 keys: greater score first, then lower index; NaN below -inf; -0 is +0."""
    scores = torch.where(scores_GN == 0, torch.zeros_like(scores_GN), scores_GN)
    bits = scores.contiguous().view(torch.int32).to(torch.int64)
    monotone = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    monotone = torch.where(torch.isnan(scores), torch.full_like(monotone, -(2**31)), monotone)
    index_N = torch.arange(scores.shape[1], device=scores.device)
    return (monotone << 32) | (MASK - index_N)


def select_reference(scores_GN: Tensor, num_beams: int) -> BeamMap:
    pool, device = scores_GN.shape[1], scores_GN.device
    order_GB = torch.argsort(order_keys(scores_GN), dim=1, descending=True)[:, :num_beams]
    ranks_B = torch.arange(num_beams, device=device)
    rank_GN = torch.full(scores_GN.shape, -1, dtype=torch.int64, device=device)
    rank_GN = rank_GN.scatter(1, order_GB, ranks_B.expand_as(order_GB))

    survives_GN = rank_GN >= 0
    keeps_GB = survives_GN[:, :num_beams]
    index_N = torch.arange(pool, device=device)
    moves_GN = survives_GN & (index_N >= num_beams)
    # The j-th dead slot (in slot order) takes the j-th mover (in pool order).
    movers_GB = torch.where(moves_GN, index_N, pool).sort(dim=1).values[:, :num_beams]
    nth_dead_GB = (torch.cumsum((~keeps_GB).long(), dim=1) - 1).clamp(min=0)
    source_GB = torch.where(keeps_GB, ranks_B, movers_GB.gather(1, nth_dead_GB))
    return BeamMap(
        source_GB,
        rank_GN.gather(1, source_GB),
        scores_GN.gather(1, source_GB),
        (~keeps_GB).sum(dim=1),
    )


def beam_prune_reference(scores_GN: Tensor, state: Sequence[Tensor], num_beams: int) -> BeamMap:
    chosen = select_reference(scores_GN, num_beams)
    groups_G1 = torch.arange(scores_GN.shape[0], device=scores_GN.device)[:, None]
    for tensor in state:
        tensor[:, :num_beams].copy_(tensor[groups_G1, chosen.source_GB])
    return chosen

"""Measuring clips from their pixels: where the objects are, what colour, on which background.

Backgrounds are grey and objects saturated, so a pixel mixed from both has chroma proportional to
the object's share of it: chroma alone gives an antialiased mask, whatever the grey behind.

Legend: N clips, O objects, F frames, H height, W width, K named colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from kinobeam.world.render import RGB, background_image, background_levels
from kinobeam.world.scenes import BACKGROUNDS, COLOURS

CHROMA_FLOOR = 0.16
"""Chroma below this is grey; the palest named colour has three times as much."""
MIN_AREA, MAX_AREA = 0.0025, 0.40
MAX_LEVEL_SHIFT = 0.12
MAX_BACKGROUND_ERROR = 0.09

# Two axes across the grey diagonal of RGB: hue is the angle in their plane, chroma the length.
_CHROMA_AXES = torch.tensor([[2.0, -1.0, -1.0], [0.0, 3**0.5, -(3**0.5)]]) / 6**0.5
_PALETTE = torch.tensor([RGB[c] for c in COLOURS]) @ _CHROMA_AXES.T
_STRENGTH = _PALETTE.norm(dim=-1)
_HUES = _PALETTE / _STRENGTH[:, None]


@dataclass(frozen=True, slots=True)
class Blobs:
    """The coloured objects of N clips, the one with the most colour first.

    alpha: (N, O, F, H, W) share of each pixel the object covers, in [0, 1].
    centre: (N, O, F, 2) x and y, as fractions of the frame.
    area: (N, O, F) as a share of the frame.
    present: (N, O, F) whether there is an object of a plausible area.
    wholeness: (N, O) share of the object's pixels that hang together, over all frames.
    hue: (N, O, F) index into `COLOURS`.
    rgb: (N, O, F, 3) mean colour of the pixels it covers fully; NaN where there are none.
    sharpness: (N, O) mean step of alpha between neighbouring pixels across the edges.
    """

    alpha: Tensor
    centre: Tensor
    area: Tensor
    present: Tensor
    wholeness: Tensor
    hue: Tensor
    rgb: Tensor
    sharpness: Tensor


def find_blobs(videos: Tensor, num_objects: int) -> Blobs:
    """Find the one or two coloured objects of each clip.

    Args:
        videos: (N, 3, F, H, W) float32 in [0, 1].
        num_objects: 1 takes everything coloured as one object; 2 splits by the two main hues.

    Returns:
        The objects, of `num_objects` slots; an absent one has `present` false everywhere.
    """
    chroma = torch.einsum("nrfhw,cr->nfhwc", videos, _CHROMA_AXES)
    direction = _normalise(_box_blur(chroma))
    share = (chroma * direction).sum(-1)
    seed = share > CHROMA_FLOOR
    hue = _nearest_hue(direction)
    slot_NOFHW = _slots(hue, share * seed, num_objects)
    largest, wholeness = _largest_parts(slot_NOFHW & seed[:, None])
    colours = _hue_masses(hue, share, largest)
    hue_NOF = colours.argmax(-1)
    peak = _peak_chroma(share[:, None] * largest, colours.sum(2).argmax(-1))
    alpha = (share[:, None] / peak[..., None, None, None]).clamp(0, 1)
    alpha = alpha * (_dilate(largest) & slot_NOFHW)
    area, centre = _moments(alpha)
    return Blobs(
        alpha=alpha,
        centre=centre,
        area=area,
        present=(area >= MIN_AREA) & (area <= MAX_AREA),
        wholeness=wholeness,
        hue=hue_NOF,
        rgb=_core_colour(videos, alpha),
        sharpness=_edge_step(alpha),
    )


def _normalise(vectors: Tensor) -> Tensor:
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / lengths.clamp_min(1e-6)


def _box_blur(image_NFHWC: Tensor) -> Tensor:
    n, f, h, w, c = image_NFHWC.shape
    flat = image_NFHWC.permute(0, 1, 4, 2, 3).reshape(n * f, c, h, w)
    return avg_pool2d(flat, 3, 1, 1).reshape(n, f, c, h, w).permute(0, 1, 3, 4, 2)


def _nearest_hue(direction_NFHW2: Tensor) -> Tensor:
    closeness: Tensor = direction_NFHW2 @ _HUES.T
    return closeness.argmax(-1)


def _slots(hue_NFHW: Tensor, weight_NFHW: Tensor, num_objects: int) -> Tensor:
    """(N, O, F, H, W) bool: which object each pixel would belong to, were it coloured."""
    if num_objects == 1:
        return torch.ones_like(hue_NFHW, dtype=torch.bool)[:, None]
    masses = torch.stack(
        [((hue_NFHW == k) * weight_NFHW).sum((1, 2, 3)) for k in range(len(COLOURS))], 1
    )
    top = masses.topk(num_objects, dim=1).indices
    closeness = (_HUES @ _HUES.T)[top]  # (N, O, K)
    owner = closeness.argmax(1)  # (N, K): the object that pixels of each hue go to
    owner = torch.stack([owner[n][hue_NFHW[n]] for n in range(len(owner))])
    return torch.stack([owner == o for o in range(num_objects)], 1)


def _largest_parts(mask_NOFHW: Tensor) -> tuple[Tensor, Tensor]:
    """The largest connected part of every mask, and its share of all parts but mere specks."""
    masks = mask_NOFHW.flatten(0, 2).numpy().astype(np.uint8)
    largest, counts = np.zeros(masks.shape, dtype=bool), np.zeros((len(masks), 2))
    for i in np.flatnonzero(masks.any((1, 2))):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(masks[i], connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        largest[i] = labels == 1 + areas.argmax()
        counts[i] = areas.max(), areas[areas >= MIN_AREA * masks[i].size].sum()
    part, total = torch.from_numpy(counts).view(*mask_NOFHW.shape[:3], 2).sum(2).unbind(-1)
    return torch.from_numpy(largest).view_as(mask_NOFHW), (part / total.clamp_min(1)).clamp(max=1)


def _dilate(mask_NOFHW: Tensor) -> Tensor:
    return max_pool2d(mask_NOFHW.flatten(0, 1).float(), 3, 1, 1).view_as(mask_NOFHW) > 0


def _hue_masses(hue_NFHW: Tensor, share_NFHW: Tensor, part_NOFHW: Tensor) -> Tensor:
    """(N, O, F, K): how much chroma of every named hue each object has."""
    weight = share_NFHW[:, None] * part_NOFHW
    hue = hue_NFHW[:, None]
    return torch.stack([(weight * (hue == k)).sum((-2, -1)) for k in range(len(COLOURS))], -1)


def _peak_chroma(share_NOFHW: Tensor, hue_NO: Tensor) -> Tensor:
    """(N, O): the chroma of full coverage, estimated but kept near the named colour's own."""
    share = share_NOFHW.flatten(2)
    top = share.square().sum(-1) / share.sum(-1).clamp_min(1e-6)
    inner = share > 0.8 * top[..., None]
    peak = (share * inner).sum(-1) / inner.sum(-1).clamp_min(1)
    nominal = _STRENGTH[hue_NO]
    return peak.clamp(0.88 * nominal, 1.1 * nominal)


def _moments(alpha_NOFHW: Tensor) -> tuple[Tensor, Tensor]:
    h, w = alpha_NOFHW.shape[-2:]
    mass = alpha_NOFHW.sum((-2, -1))
    x = (alpha_NOFHW.sum(-2) @ ((torch.arange(w) + 0.5) / w)) / mass.clamp_min(1e-6)
    y = (alpha_NOFHW.sum(-1) @ ((torch.arange(h) + 0.5) / h)) / mass.clamp_min(1e-6)
    return mass / (h * w), torch.stack([x, y], -1)


def _core_colour(videos: Tensor, alpha_NOFHW: Tensor) -> Tensor:
    core = (alpha_NOFHW > 0.8).float()
    count = core.sum((-2, -1))
    rgb = torch.einsum("nofhw,nrfhw->nofr", core, videos) / count[..., None]
    return torch.where(count[..., None] >= 3, rgb, torch.nan)


def _edge_step(alpha_NOFHW: Tensor) -> Tensor:
    """Steps weighted by themselves, so that flat parts do not count."""
    steps = [alpha_NOFHW.diff(dim=-1).abs(), alpha_NOFHW.diff(dim=-2).abs()]
    squares = torch.stack([s.square().sum((2, 3, 4)) for s in steps]).sum(0)
    return squares / torch.stack([s.sum((2, 3, 4)) for s in steps]).sum(0).clamp_min(1e-6)


@dataclass(frozen=True, slots=True)
class Backgrounds:
    """What lies behind the objects of N clips.

    names: the nearest of `BACKGROUNDS`, or "other" where none is near.
    level: (N, F) mean grey of the frame minus that background's; the light's flicker.
    """

    names: list[str]
    level: Tensor


def find_backgrounds(videos: Tensor) -> Backgrounds:
    """Match the pixels away from anything coloured with the named backgrounds.

    Args:
        videos: (N, 3, F, H, W) float32 in [0, 1].

    Returns:
        The backgrounds; every name may be lighter or darker as a whole by `MAX_LEVEL_SHIFT`.
    """
    chroma = torch.einsum("nrfhw,cr->nfhwc", videos, _CHROMA_AXES).norm(dim=-1)
    near = _dilate(_dilate((chroma > CHROMA_FLOOR)[:, None]))[:, 0]
    outside = (~near).float()
    count = outside.sum((-2, -1))
    off = videos.mean(1)[:, None] - _background_bank(videos.shape[-1])[:, None]
    off = off * outside[:, None]  # (N, backgrounds, F, H, W)
    level = off.sum((-2, -1)) / count[:, None].clamp_min(1)
    shift = level.mean(-1).clamp(-MAX_LEVEL_SHIFT, MAX_LEVEL_SHIFT)[..., None, None, None]
    error = (off - shift * outside[:, None]).square().sum((2, 3, 4))
    error = (error / count.sum(-1)[:, None].clamp_min(1)).sqrt()
    best_error, best = error.min(1)
    known = (best_error <= MAX_BACKGROUND_ERROR) & (outside.mean((1, 2, 3)) > 0.3)
    names = [
        BACKGROUNDS[b] if k else "other" for b, k in zip(best.tolist(), known.tolist(), strict=True)
    ]
    return Backgrounds(names, level[torch.arange(len(best)), best])


def _background_bank(size: int) -> Tensor:
    pictures = []
    for name in BACKGROUNDS:
        low, high = background_levels(name)
        pictures.append(background_image(name, size, low=low, high=high))
    return torch.stack(pictures)

"""Reading shape and angle off a mask by comparing it with rendered shapes.

Masks are resampled to one canonical size (equal area, centred), then compared with a bank of shapes
over angles, blurs and scales in one matrix product.

Legend: M masks, S shapes, T templates, P canonical pixels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from kinobeam.world.render import shape_coverage
from kinobeam.world.scenes import SHAPES

SYMMETRY: dict[str, float] = {
    "circle": 0.0,
    "square": math.pi / 2,
    "triangle": math.tau / 3,
    "cross": math.pi / 2,
}
"""Turning by this angle gives the same shape back; 0 for a shape that no turn changes."""

_GRID = 24
_EXTENT = 1.15  # half the canonical patch, in roots of the shape's area
_FINE = 4
_ANGLE_STEP = math.radians(5.0)
_BLURS = (0.04, 0.08, 0.13, 0.20, 0.28)  # in roots of the shape's area
_SCALES = (0.90, 0.95, 1.0, 1.06, 1.12)


@dataclass(frozen=True, slots=True)
class ShapeFit:
    """error: (M, S) one minus the cosine to the best template; angle: (M, S) its turn."""

    error: Tensor
    angle: Tensor


def fit_shapes(alpha_MHW: Tensor, centre_M2: Tensor, area_M: Tensor) -> ShapeFit:
    """Compare masks with every shape at every angle.

    Args:
        alpha_MHW: (M, H, W) coverage of each pixel.
        centre_M2: (M, 2) centroids, as fractions of the frame.
        area_M: (M,) areas, as shares of the frame.

    Returns:
        Errors in [0, 1] and angles; an empty mask has error 1 for every shape.
    """
    bank, shape_T, angle_T = _bank()
    masks = _canonical(alpha_MHW, centre_M2, area_M).flatten(1)
    masks = masks / masks.norm(dim=1, keepdim=True).clamp_min(1e-6)
    cosine_MT = masks @ bank.T
    best = [cosine_MT[:, shape_T == s].max(1) for s in range(len(SHAPES))]
    angles = [angle_T[shape_T == s][b.indices] for s, b in enumerate(best)]
    return ShapeFit(1 - torch.stack([b.values for b in best], 1), torch.stack(angles, 1))


def _canonical(alpha_MHW: Tensor, centre_M2: Tensor, area_M: Tensor) -> Tensor:
    ramp = ((torch.arange(_GRID) + 0.5) / _GRID * 2 - 1) * _EXTENT
    offsets = torch.stack(torch.meshgrid(ramp, ramp, indexing="xy"), -1)
    where = centre_M2[:, None, None] + offsets * area_M.clamp_min(1e-6).sqrt()[:, None, None, None]
    return grid_sample(alpha_MHW[:, None], where * 2 - 1, align_corners=False)[:, 0]


@functools.cache
def _bank() -> tuple[Tensor, Tensor, Tensor]:
    """(T, P) unit templates with the shape index and the angle of each."""
    shapes, angles = [], []
    for index, name in enumerate(SHAPES):
        count = max(round(SYMMETRY[name] / _ANGLE_STEP), 1)
        shapes += [index] * count
        angles += [i * SYMMETRY[name] / count for i in range(count)]
    shape, angle = torch.tensor(shapes), torch.tensor(angles)
    fine = torch.cat([_fine_templates(shape, angle, scale) for scale in _SCALES])
    shrinks = [_shrink(sigma) for sigma in _BLURS]
    bank = torch.cat([shrink @ fine @ shrink.T for shrink in shrinks]).flatten(1)
    repeats = len(_SCALES) * len(_BLURS)
    return bank / bank.norm(dim=1, keepdim=True), shape.repeat(repeats), angle.repeat(repeats)


def _fine_templates(shape: Tensor, angle: Tensor, scale: float) -> Tensor:
    size = _GRID * _FINE
    radius = _unit_radius()[shape] * scale / (2 * _EXTENT)
    middle = torch.full((len(shape), 1, 1, 1), 0.5)
    column = (slice(None), None, None, None)
    return shape_coverage(shape, middle, middle, radius[column], angle[column], size)[:, 0]


@functools.cache
def _unit_radius() -> Tensor:
    """The radius at which each shape has area 1, measured on a rendered mask."""
    column = torch.zeros(len(SHAPES), 1, 1, 1)
    masks = shape_coverage(
        torch.arange(len(SHAPES)), column + 0.5, column + 0.5, column + 0.25, column, 256
    )
    return 0.25 / masks.mean((1, 2, 3)).sqrt()


def radius_of(area: Tensor, shape: Tensor) -> Tensor:
    """Radius of the shapes `SHAPES[shape]` from their areas, both relative to the frame."""
    return area.sqrt() * _unit_radius()[shape]


def _shrink(sigma: float) -> Tensor:
    """(grid, fine grid): a Gaussian blur and the averaging down, in one matrix."""
    size = _GRID * _FINE
    sigma *= size / (2 * _EXTENT)
    ramp = torch.arange(size)
    blur = torch.exp(-0.5 * ((ramp[:, None] - ramp) / sigma).square())
    return (blur / blur.sum(1, keepdim=True)).view(_GRID, _FINE, size).mean(1)

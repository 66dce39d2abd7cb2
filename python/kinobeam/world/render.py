"""Rendering of scenes to clips: antialiased, batched, seeded.

Legend: N clips, O objects of a scene, F frames, H height, W width. Lengths are fractions of the
frame.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinobeam.world.scenes import BACKGROUNDS, RELATIONS, SHAPES, Scene, SceneObject

RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.92, 0.10, 0.10),
    "yellow": (0.92, 0.86, 0.10),
    "green": (0.10, 0.76, 0.15),
    "cyan": (0.10, 0.82, 0.88),
    "blue": (0.12, 0.20, 0.95),
    "purple": (0.76, 0.10, 0.86),
}
_MARGIN = 0.03
_PAIR_SCALE = 0.65
_STRIPE_PERIOD = 0.25
_SPIN_PER_CLIP = math.radians(120.0)
_SIZE_RANGES = {None: (0.15, 0.21), "small": (0.10, 0.125), "large": (0.235, 0.26)}
_TRAVEL_RANGES = {None: (0.36, 0.46), "slowly": (0.20, 0.26), "quickly": (0.50, 0.58)}
_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_Box = tuple[float, float, float, float]
_WHOLE_FRAME: _Box = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Track:
    """Where one object is in every frame: centres, radii and angles (radians), each of length F."""

    x: list[float]
    y: list[float]
    radius: list[float]
    angle: list[float]


def render(
    scenes: Sequence[Scene],
    *,
    num_frames: int = 8,
    size: int = 32,
    seeds: Sequence[int],
) -> Tensor:
    """Render scenes to clips.

    Args:
        scenes: N scenes, of one or two objects.
        num_frames: frames of each clip.
        size: height and width in pixels.
        seeds: N seeds; each fixes its clip's positions, sizes, speeds and shades.

    Returns:
        (N, 3, F, H, W) float32 in [0, 1].

    Raises:
        ValueError: `seeds` and `scenes` differ in length.

    Notes:
        A clip depends on its scene and seed alone, not on its neighbours in the batch.

    Example:
        >>> from kinobeam.world.scenes import Scene, SceneObject
        >>> render([Scene((SceneObject("red", "circle", "left"),), "dark")], seeds=[0]).shape
        torch.Size([1, 3, 8, 32, 32])
    """
    if len(scenes) != len(seeds):
        raise ValueError(f"expected one seed per scene: {len(scenes)} scenes, {len(seeds)} seeds")
    rngs = [random.Random(f"render/{seed}") for seed in seeds]
    tracks = [_layout(scene, num_frames, rng) for scene, rng in zip(scenes, rngs, strict=True)]
    video = _render_backgrounds([s.background for s in scenes], size, rngs)
    video = video[:, None].expand(-1, num_frames, -1, -1, -1).clone()
    for slot in range(max((len(s.objects) for s in scenes), default=0)):
        rows = [n for n, s in enumerate(scenes) if len(s.objects) > slot]
        objects = [scenes[n].objects[slot] for n in rows]
        alpha = _coverage(objects, [tracks[n][slot] for n in rows], size)[..., None]
        paint = torch.tensor(
            [_shade(o.colour, rngs[n]) for n, o in zip(rows, objects, strict=True)]
        )
        video[rows] = torch.lerp(video[rows], paint[:, None, None, None, :], alpha)
    return video.permute(0, 4, 1, 2, 3).contiguous()


def _layout(scene: Scene, num_frames: int, rng: random.Random) -> list[Track]:
    if scene.relation is None:
        return [_track(scene.main, _WHOLE_FRAME, num_frames, rng, scale=1.0)]
    boxes = _boxes(scene.relation)
    return [
        _track(obj, box, num_frames, rng, scale=_PAIR_SCALE)
        for obj, box in zip(scene.objects, boxes, strict=True)
    ]


def _boxes(relation: str) -> tuple[_Box, _Box]:
    low, high = (0.0, 0.5), (0.5, 1.0)
    first, second = (low, high) if RELATIONS.index(relation) % 2 == 0 else (high, low)
    if relation in ("above", "below"):
        return (0.0, 1.0, *first), (0.0, 1.0, *second)
    return (*first, 0.0, 1.0), (*second, 0.0, 1.0)


def _track(
    obj: SceneObject, box: _Box, num_frames: int, rng: random.Random, *, scale: float
) -> Track:
    x0, x1, y0, y1 = box
    time = [i / max(num_frames - 1, 1) for i in range(num_frames)]
    radius = [scale * rng.uniform(*_SIZE_RANGES[obj.size])] * num_frames
    if obj.motion in ("growing", "shrinking"):
        small, large = scale * rng.uniform(0.09, 0.12), scale * rng.uniform(0.24, 0.28)
        first, last = (small, large) if obj.motion == "growing" else (large, small)
        radius = [first + (last - first) * t for t in time]
    reach = max(radius) + _MARGIN * scale
    dx, dy = [0.0] * num_frames, [0.0] * num_frames
    if obj.motion in _DIRECTIONS:
        along = _DIRECTIONS[obj.motion]
        room = (x1 - x0 if along[0] else y1 - y0) - 2 * reach
        travel = min(rng.uniform(*_TRAVEL_RANGES[obj.speed]), room)
        dx, dy = [along[0] * travel * t for t in time], [along[1] * travel * t for t in time]
    elif obj.motion == "circling":
        room = min(x1 - x0, y1 - y0) / 2 - reach
        orbit, phase = min(scale * rng.uniform(0.16, 0.20), room), rng.uniform(0.0, math.tau)
        turn = [phase + math.tau * i / num_frames for i in range(num_frames)]
        dx, dy = [orbit * math.cos(a) for a in turn], [orbit * math.sin(a) for a in turn]
    spin = _SPIN_PER_CLIP if obj.motion == "spinning" else 0.0
    x = _start(dx, x0 + reach, x1 - reach, rng)
    y = _start(dy, y0 + reach, y1 - reach, rng)
    return Track([x + d for d in dx], [y + d for d in dy], radius, [spin * t for t in time])


def _start(moves: list[float], low: float, high: float, rng: random.Random) -> float:
    """A start that keeps the whole path inside [low, high]; the middle when there is no room."""
    low, high = low - min(moves), high - max(moves)
    return rng.uniform(low, high) if low < high else (low + high) / 2


def _shade(colour: str, rng: random.Random) -> list[float]:
    shade = rng.uniform(-0.04, 0.04)
    return [min(max(c + shade, 0.0), 1.0) for c in RGB[colour]]


def background_image(name: str, size: int, *, low: float, high: float) -> Tensor:
    """One background as a (H, W) picture of grey levels; plain ones use `low` alone."""
    ramp = (torch.arange(size) + 0.5) / size
    if name == "gradient":
        return (low + (high - low) * ramp)[:, None].expand(size, size)
    if name == "striped":
        wave = torch.sin(ramp * math.tau / _STRIPE_PERIOD) * (_STRIPE_PERIOD * size / 2)
        return (low + (high - low) * (0.5 + wave).clamp(0, 1))[None, :].expand(size, size)
    return torch.full((size, size), low)


_LEVELS = {
    "dark": (0.08, 0.08),
    "light": (0.92, 0.92),
    "gradient": (0.15, 0.75),
    "striped": (0.32, 0.62),
}


def background_levels(name: str) -> tuple[float, float]:
    """The mean lowest and highest grey level of a background."""
    if name not in BACKGROUNDS:
        raise ValueError(f"background: expected one of {', '.join(BACKGROUNDS)}; got {name!r}")
    return _LEVELS[name]


def _render_backgrounds(names: list[str], size: int, rngs: list[random.Random]) -> Tensor:
    images = []
    for name, rng in zip(names, rngs, strict=True):
        low, high = background_levels(name)
        shift = rng.uniform(-0.04, 0.04)
        images.append(background_image(name, size, low=low + shift, high=high + shift))
    grey = torch.stack(images) if images else torch.empty(0, size, size)
    return grey[..., None].expand(-1, -1, -1, 3)


def _coverage(objects: list[SceneObject], tracks: list[Track], size: int) -> Tensor:
    def stack(name: str) -> Tensor:
        return torch.tensor([getattr(t, name) for t in tracks])[:, :, None, None]

    shapes = torch.tensor([SHAPES.index(o.shape) for o in objects])
    return shape_coverage(shapes, stack("x"), stack("y"), stack("radius"), stack("angle"), size)


def shape_coverage(
    shapes: Tensor, x: Tensor, y: Tensor, radius: Tensor, angle: Tensor, size: int
) -> Tensor:
    """Antialiased masks of shapes.

    Args:
        shapes: (N,) int64 indices into `SHAPES`.
        x, y, radius, angle: (N, F, 1, 1) float32; centres and radii as fractions of the frame.
        size: height and width in pixels.

    Returns:
        (N, F, H, W) float32: the covered share of each pixel, from the signed distance to the edge.
    """
    ramp = (torch.arange(size) + 0.5) / size
    u, v = (ramp[None, :] - x) / radius, (ramp[:, None] - y) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = u * cos + v * sin, v * cos - u * sin
    mask = torch.empty_like(u)
    for index, distance in enumerate(_DISTANCES):
        rows = (shapes == index).nonzero()[:, 0]
        if rows.numel():
            mask[rows] = 0.5 - distance(u[rows], v[rows]) * radius[rows] * size
    return mask.clamp_(0, 1)


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.95


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.84


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Equilateral, point up, centroid at the origin: the largest distance beyond its sides."""
    slanted = u.abs() * math.cos(math.pi / 6) - v * 0.5
    return torch.maximum(v, slanted) - 0.56


def _cross(u: Tensor, v: Tensor) -> Tensor:
    a, b = u.abs(), v.abs()
    return torch.minimum(torch.maximum(a - 1.0, b - 0.34), torch.maximum(a - 0.34, b - 1.0))


_DISTANCES = (_circle, _square, _triangle, _cross)

"""The judge: whether a clip shows what its caption says, measured from pixels alone.

Legend: N clips, O objects, F frames, H height, W width, S shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kinobeam.world import motion
from kinobeam.world.match import SYMMETRY, fit_shapes, radius_of
from kinobeam.world.measure import Blobs, find_backgrounds, find_blobs
from kinobeam.world.motion import Track
from kinobeam.world.scenes import COLOURS, DYNAMICS, SHAPES, Claim, Claims, parse_caption

MIN_FRAMES = 5
DIRECTIONS = DYNAMICS["high"][:4]
DEFECTS = ("unnatural_motion", "deformation", "reversal", "motionless", "flicker", "sharpness")

_MIN_WHOLENESS = 0.85
_MAX_BLOB_ERROR = 0.2  # beyond this it is no single compact object
_MIN_HOLD = 0.75  # share of frames in which a colour or a shape has to be seen
_SMALL, _LARGE = 0.1375, 0.2225
_PAIR_SCALE = 0.65  # two objects share the frame: their sizes are read on a smaller scale
_SLOW, _QUICK = 0.31, 0.48
_MARGIN = 0.05
_BATCH_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What one object looks like to the judge.

    colour, shape: a name of the world, or "none" where it is missing, broken or unclear.
    motion: a name of the world, "other", or "none".
    size: its mean radius, speed: the distance from its first place to its last, as fractions of
        the frame.
    """

    colour: str
    shape: str
    motion: str
    size: float
    speed: float


@dataclass(frozen=True)
class Verdict:
    """The judge's findings about one clip.

    attributes: for every attribute the caption claims, whether the clip shows it: "colour",
        "shape", "motion", "size", "speed", "background", and for two objects "relation" and the
        second one's "colour2", "shape2", "motion2", "size2", "speed2".
    defects: 0 or 1 for "unnatural_motion" (it vanishes or jumps), "deformation" (its shape or size
        breaks), "reversal" (it turns back along its path), "motionless" (the caption claims a
        motion, there is none), "flicker" (colours or light change between frames); and
        "sharpness", the mean step of the mask across edges (about 0.6 as rendered; blur lowers it).
    measured: what was seen of each object, in the caption's order.
    background: the background seen, or "other".
    """

    attributes: dict[str, bool]
    defects: dict[str, float]
    measured: tuple[Seen, ...]
    background: str

    @property
    def all_correct(self) -> bool:
        return all(self.attributes.values())


def judge(videos: Tensor, captions: Sequence[str]) -> list[Verdict]:
    """Measure whether each clip shows what its caption says.

    Args:
        videos: (N, 3, F, H, W) floating point in [0, 1]; square frames, F at least 5.
        captions: N captions of the world's grammar.

    Returns:
        N verdicts; attributes a caption does not mention are not judged.

    Raises:
        ValueError: `videos` has another shape, dtype or range, `captions` another length, or a
            caption says nothing the world knows.

    Notes:
        Deterministic; a verdict does not depend on the other clips. Runs on the CPU without
        gradients. Speed is judged only of objects said to move left, right, up or down.

    Example:
        >>> from kinobeam.world.render import render
        >>> from kinobeam.world.scenes import Scene, SceneObject
        >>> video = render([Scene((SceneObject("red", "circle", "left"),), "dark")], seeds=[0])
        >>> judge(video, ["a red circle moves left on a dark background"])[0].all_correct
        True
    """
    _check(videos, captions)
    claims = [parse_caption(c) for c in captions]
    verdicts: dict[int, Verdict] = {}
    for num_objects in (1, 2):
        rows = [n for n, c in enumerate(claims) if len(c.objects) == num_objects]
        size = max(_BATCH_PIXELS // max(videos[0].numel(), 1), 1) if rows else 1
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            verdicts |= zip(
                part, _judge_batch(videos[part], [claims[n] for n in part]), strict=True
            )
    return [verdicts[n] for n in range(len(claims))]


def accuracy(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Average verdicts: the share of clips that show each attribute, among those that claim it.

    Args:
        verdicts: what `judge` returned.

    Returns:
        A share for every claimed attribute, and "all": the share of clips right in everything.

    Raises:
        ValueError: there are no verdicts.
    """
    if not verdicts:
        raise ValueError("expected at least one verdict, got none")
    names = list(dict.fromkeys(name for v in verdicts for name in v.attributes))
    hits = {name: [v.attributes[name] for v in verdicts if name in v.attributes] for name in names}
    hits["all"] = [v.all_correct for v in verdicts]
    return {name: sum(h) / len(h) for name, h in hits.items()}


def _check(videos: Tensor, captions: Sequence[str]) -> None:
    if not isinstance(videos, Tensor) or not videos.is_floating_point():
        kind = videos.dtype if isinstance(videos, Tensor) else type(videos).__name__
        raise ValueError(f"videos: expected a floating-point tensor in [0, 1], got {kind}")
    shape = tuple(videos.shape)
    if videos.ndim != 5 or shape[1] != 3 or shape[3] != shape[4] or shape[2] < MIN_FRAMES:
        raise ValueError(
            f"videos: expected (N, 3, F, H, W) with H = W and F >= {MIN_FRAMES}, got {shape}"
        )
    if isinstance(captions, str) or len(captions) != shape[0]:
        given = "one string" if isinstance(captions, str) else len(captions)
        raise ValueError(f"captions: expected one for each of {shape[0]} clips, got {given}")
    if videos.numel() and not bool(((videos >= 0) & (videos <= 1)).all()):
        low, high = videos.min().item(), videos.max().item()
        raise ValueError(
            f"videos: expected values in [0, 1], got [{low:.4g}, {high:.4g}]; clamp first"
        )


@torch.no_grad()
def _judge_batch(videos: Tensor, claims: list[Claims]) -> list[Verdict]:
    videos = videos.detach().float().cpu()
    blobs = find_blobs(videos, len(claims[0].objects))
    backgrounds = find_backgrounds(videos)
    objects = _objects(blobs)
    level_N = backgrounds.level.diff(dim=1).abs().amax(1)
    sharpness_N = blobs.sharpness.mean(1)
    return [
        _verdict(claim, pair, name, bool(level > 0.05), float(sharpness))
        for claim, pair, name, level, sharpness in zip(
            claims, objects, backgrounds.names, level_N, sharpness_N, strict=True
        )
    ]


_Object = tuple[Seen, Track]


def _objects(blobs: Blobs) -> list[list[_Object]]:
    """The objects of every clip, measured."""
    n, o, f = blobs.area.shape
    fit = fit_shapes(blobs.alpha.flatten(0, 2), blobs.centre.flatten(0, 2), blobs.area.flatten())
    error_NOFS, angle_NOFS = fit.error.view(n, o, f, -1), fit.angle.view(n, o, f, -1)
    weight_NOF = blobs.area / blobs.area.sum(-1, keepdim=True).clamp_min(1e-6)
    mean_NOS = (error_NOFS * weight_NOF[..., None]).sum(2)
    shape_NO = mean_NOS.argmin(-1)
    pick = shape_NO[..., None, None].expand(n, o, f, 1)
    error_NOF, angle_NOF = (t.gather(-1, pick)[..., 0] for t in (error_NOFS, angle_NOFS))
    margin_NOF = error_NOF - error_NOFS.amin(-1)
    radius_NOF = radius_of(blobs.area, shape_NO[..., None])
    whole_NO = (blobs.wholeness >= _MIN_WHOLENESS) & (mean_NOS.amin(-1) <= _MAX_BLOB_ERROR)
    clear_NO = whole_NO & (mean_NOS.amin(-1) <= motion.MAX_SHAPE_ERROR)
    clear_NO &= (weight_NOF * (margin_NOF <= 0)).sum(-1) >= _MIN_HOLD

    def track(i: int, j: int) -> Track:
        centre, radius, angle, error, margin, rgb = (
            t[i, j].double().numpy()
            for t in (blobs.centre, radius_NOF, angle_NOF, error_NOF, margin_NOF, blobs.rgb)
        )
        present, hue = blobs.present[i, j].numpy(), blobs.hue[i, j].numpy()
        period = SYMMETRY[SHAPES[int(shape_NO[i, j])]]
        return Track(centre, radius, angle, present, period, error, margin, rgb, hue)

    def measured(i: int, j: int) -> _Object:
        path = track(i, j)
        shape = SHAPES[int(shape_NO[i, j])] if clear_NO[i, j] else "none"
        return _see(path, shape, whole=bool(whole_NO[i, j])), path

    return [[measured(i, j) for j in range(o)] for i in range(n)]


def _see(track: Track, shape: str, *, whole: bool) -> Seen:
    seen = track.present
    if seen.mean() < _MIN_HOLD:
        return Seen("none", "none", "none", 0.0, 0.0)
    counts = np.bincount(track.hue[seen], minlength=len(COLOURS))
    colour = (
        COLOURS[int(counts.argmax())] if counts.max() >= _MIN_HOLD * track.num_frames else "none"
    )
    return Seen(
        colour=colour,
        shape=shape,
        motion=motion.name_motion(track) if whole else "other",
        size=float(track.radius[seen].mean()) if whole else 0.0,
        speed=float(np.linalg.norm(track.net)) if seen.all() else 0.0,
    )


def _verdict(
    claims: Claims, objects: list[_Object], background: str, dims: bool, sharpness: float
) -> Verdict:
    objects = _in_order(claims, objects)
    attributes: dict[str, bool] = {}
    scale = 1.0 if len(objects) == 1 else _PAIR_SCALE
    for suffix, claim, (seen, _) in zip(("", "2"), claims.objects, objects, strict=False):
        attributes |= {f"{k}{suffix}": v for k, v in _check_object(claim, seen, scale).items()}
    if claims.relation is not None:
        attributes["relation"] = _holds(claims.relation, objects[0][1], objects[1][1])
    if claims.background is not None:
        attributes["background"] = claims.background == background
    defects = _defects(claims, [track for _, track in objects])
    defects["flicker"] = max(defects["flicker"], float(dims))
    defects["sharpness"] = sharpness
    return Verdict(attributes, defects, tuple(seen for seen, _ in objects), background)


def _in_order(claims: Claims, objects: list[_Object]) -> list[_Object]:
    """The objects in the caption's order: by colour first, then by what else fits."""

    def fit(order: list[_Object]) -> tuple[int, int]:
        pairs = list(zip(claims.objects, order, strict=True))
        colours = sum(c.colour == seen.colour for c, (seen, _) in pairs)
        return colours, sum((c.shape == s.shape) + (c.motion == s.motion) for c, (s, _) in pairs)

    return max(objects, objects[::-1], key=fit)


def _check_object(claim: Claim, seen: Seen, scale: float) -> dict[str, bool]:
    checks = {
        "colour": claim.colour == seen.colour,
        "shape": claim.shape == seen.shape,
        "motion": claim.motion == seen.motion,
        "size": _size_fits(claim.size, seen.size / scale),
        "speed": seen.motion in DIRECTIONS and _speed_fits(claim.speed, seen),
    }
    judged = {name: value for name, value in checks.items() if getattr(claim, name) is not None}
    if claim.motion is not None and claim.motion not in DIRECTIONS:
        judged.pop("speed", None)
    return judged


def _size_fits(claim: str | None, radius: float) -> bool:
    return radius >= _LARGE if claim == "large" else 0 < radius <= _SMALL


def _speed_fits(claim: str | None, seen: Seen) -> bool:
    """Large objects have less room: quick is also whatever crosses nearly all of it."""
    room = 1 - 2 * (seen.size + _MARGIN)
    return seen.speed >= min(_QUICK, room) if claim == "quickly" else seen.speed <= _SLOW


def _holds(relation: str, first: Track, second: Track) -> bool:
    seen = first.present & second.present
    apart = (second.centre - first.centre)[seen, 1 if relation in ("above", "below") else 0]
    apart = apart if relation in ("above", "left of") else -apart
    return bool(seen.mean() >= _MIN_HOLD and (apart > 0.02).mean() >= 0.9)


def _defects(claims: Claims, tracks: list[Track]) -> dict[str, float]:
    moving = [
        t for c, t in zip(claims.objects, tracks, strict=True) if c.motion not in (None, "still")
    ]
    seen = [t for t in tracks if t.present.any()]
    return {
        "unnatural_motion": float(any(motion.is_unnatural(t) for t in seen)),
        "deformation": float(any(motion.is_deformed(t) for t in seen)),
        "reversal": float(any(motion.is_reversed(t) for t in seen)),
        "motionless": float(any(motion.is_motionless(t) for t in moving)),
        "flicker": float(any(motion.changes_colour(t) for t in seen)),
    }

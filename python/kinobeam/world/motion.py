"""What a tracked object does over time: the name of its motion, and what is unnatural in it.

Legend: F frames. Lengths are fractions of the frame, angles radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_TRAVEL = 0.12
MAX_REST = 0.055
MIN_ORBIT = 0.05
MIN_GROWTH, MAX_GROWTH_AT_REST = 0.40, 0.25  # natural logarithm of the radius's ratio
MIN_TURN, MAX_TURN_AT_REST = math.radians(60.0), math.radians(40.0)
MAX_SHAPE_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class Track:
    """One object over the frames.

    centre: (F, 2); radius: (F,); angle: (F,); present: (F,) whether it was seen at all.
    period: the turn that gives its shape back, 0 for a shape that no turn changes.
    error: (F,) how far each frame is from its shape over the clip (1 minus a cosine).
    margin: (F,) how much nearer each frame is to another shape, 0 where to none.
    rgb: (F, 3) its colour, NaN where too small to tell; hue: (F,) index of its named colour.
    """

    centre: Array
    radius: Array
    angle: Array
    present: NDArray[np.bool_]
    period: float
    error: Array
    margin: Array
    rgb: Array
    hue: NDArray[np.int64]

    @property
    def num_frames(self) -> int:
        return len(self.radius)

    @property
    def steps(self) -> Array:
        return np.diff(self.centre, axis=0)

    @property
    def net(self) -> Array:
        return np.asarray(self.centre[-1] - self.centre[0])

    @property
    def spread(self) -> float:
        """The farthest the object is from its mean place."""
        return float(np.linalg.norm(self.centre - self.centre.mean(0), axis=1).max())

    @property
    def growth(self) -> float:
        return float(np.log(self.radius[-1] / self.radius[0]))

    @property
    def turns(self) -> Array:
        """(F - 1,) smallest turns between frames, given the shape's symmetry."""
        if not self.period:
            return np.zeros(self.num_frames - 1)
        return _wrap(np.diff(self.angle), self.period)


def _wrap(angle: Array, period: float) -> Array:
    return (angle + period / 2) % period - period / 2


def name_motion(track: Track) -> str:
    """One of `MOTIONS`, "other" for a motion that is none of them, or "none" for a missing object.

    A motion is named only if it goes on steadily over the whole clip: an object that jumps, turns
    back or is missing in a frame is never said to move left.
    """
    if not track.present.all():
        return "none"
    if _rests(track):
        return _name_in_place(track)
    if abs(track.growth) > MIN_GROWTH:
        return "other"
    return _name_direction(track) or ("circling" if _circles(track) else "other")


def _rests(track: Track) -> bool:
    return track.spread <= MAX_REST


def _name_in_place(track: Track) -> str:
    if abs(track.growth) >= MIN_GROWTH:
        return _name_growth(track)
    if abs(track.growth) > MAX_GROWTH_AT_REST:
        return "other"
    turn = abs(track.turns.sum())
    if turn >= MIN_TURN:
        return "spinning" if _turns_steadily(track.turns) else "other"
    return "still" if turn <= MAX_TURN_AT_REST else "other"


def _name_growth(track: Track) -> str:
    steps = np.diff(np.log(track.radius)) * np.sign(track.growth)
    if steps.min() < -0.08 or steps.max() > 0.6 * abs(track.growth):
        return "other"
    return "growing" if track.growth > 0 else "shrinking"


def _turns_steadily(turns: Array) -> bool:
    size = np.abs(turns)
    return bool(
        abs(turns.sum()) >= 0.75 * size.sum() and size.max() <= 2 * size.mean() + math.radians(8)
    )


def _name_direction(track: Track) -> str | None:
    axis = int(np.abs(track.net).argmax())
    travel = abs(track.net[axis])
    along = track.steps[:, axis] * np.sign(track.net[axis])
    across = np.abs(track.centre[:, 1 - axis] - track.centre[0, 1 - axis]).max()
    if travel < MIN_TRAVEL or across > max(0.25 * travel, 0.04):
        return None
    mean = travel / len(along)
    if along.min() < -0.25 * mean - 0.01 or along.max() > 2.5 * mean + 0.01:
        return None
    return (("left", "right"), ("up", "down"))[axis][int(track.net[axis] > 0)]


def _circles(track: Track) -> bool:
    arm = track.centre - track.centre.mean(0)
    reach = np.linalg.norm(arm, axis=1)
    sweep = _wrap(np.diff(np.arctan2(arm[:, 1], arm[:, 0])), math.tau)
    sweep = sweep * np.sign(sweep.sum())
    expected = math.tau / track.num_frames
    return bool(
        reach.mean() >= MIN_ORBIT
        and reach.min() >= 0.4 * reach.max()
        and sweep.sum() >= 0.65 * expected * len(sweep)
        and sweep.min() >= -0.3 * expected
        and sweep.max() <= 2.2 * expected
    )


def is_unnatural(track: Track) -> bool:
    """Whether the object vanishes, jumps in place or in angle."""
    if not track.present.all():
        return True
    return bool(_jumps(track).any()) or _jitters(track)


def _jumps(track: Track) -> NDArray[np.bool_]:
    """Changes of velocity beyond those of an even circle through as many frames."""
    bend = np.linalg.norm(np.diff(track.steps, axis=0), axis=1)
    length = np.linalg.norm(track.steps, axis=1)
    limit = (2 * math.sin(math.pi / track.num_frames) + 0.5) * (length[1:] + length[:-1]) / 2
    return np.asarray(bend > limit + 0.04)


def _jitters(track: Track) -> bool:
    if track.error.mean() > MAX_SHAPE_ERROR:
        return False
    return bool(np.abs(track.turns).sum() >= 1.5 * MIN_TURN and not _turns_steadily(track.turns))


def is_deformed(track: Track) -> bool:
    """Whether its shape is lost in over a fifth of the frames, or its size jumps."""
    if not track.present.any():
        return False
    lost = (track.error > MAX_SHAPE_ERROR) | (track.margin > 0.02)
    radius = track.radius[track.present]
    jump = np.abs(np.diff(radius, n=2)) > 0.25 * (radius[1:-1]) + 0.01
    return bool(lost[track.present].mean() > 0.2 or jump.any())


def is_reversed(track: Track) -> bool:
    """Whether the object turns back along its path, or grows and shrinks in one clip."""
    if not track.present.all():
        return False
    length = np.linalg.norm(track.steps, axis=1)
    moving = track.steps[length > max(0.02, 0.3 * length.max())]
    cosine = (moving[1:] * moving[:-1]).sum(1)
    cosine = cosine / (np.linalg.norm(moving[1:], axis=1) * np.linalg.norm(moving[:-1], axis=1))
    growth = np.diff(np.log(track.radius))
    changing = np.sign(growth[np.abs(growth) > max(0.06, 0.3 * np.abs(growth).max())])
    return bool((cosine < -0.5).any() or (changing[1:] != changing[:-1]).any())


def is_motionless(track: Track) -> bool:
    """Whether the object is there and neither moves, grows nor turns."""
    return bool(
        track.present.all()
        and _rests(track)
        and np.ptp(np.log(track.radius)) <= MAX_GROWTH_AT_REST
        and np.ptp(track.turns.cumsum()) <= MAX_TURN_AT_REST
    )


def changes_colour(track: Track) -> bool:
    """Whether its named colour changes, or its colour by over a tenth between two frames."""
    hue = track.hue[track.present]
    rgb = track.rgb[~np.isnan(track.rgb).any(1)]
    steps = np.abs(np.diff(rgb, axis=0)).mean(1)
    return bool((hue[1:] != hue[:-1]).any() or (steps > 0.1).any())

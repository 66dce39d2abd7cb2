"""What the world's pixel judge finds, where a prompt is one that it can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from kinobeam.world.judge import MIN_FRAMES, Seen, judge
from kinobeam.world.scenes import Claims, parse_caption

_WORDS = {
    "unnatural_motion": "jumps or vanishes",
    "deformation": "deforms",
    "reversal": "turns back",
    "motionless": "does not move",
    "flicker": "flickers",
}


class Finding(NamedTuple):
    """One claim of the prompt, and whether each clip shows it."""

    name: str
    shown: list[bool]


class Verdicts(NamedTuple):
    """Claims, and per clip what was seen and what is wrong, in words."""

    findings: list[Finding]
    seen: list[str]
    faults: list[str]


def find_verdicts(prompt: str, clips_F3HW: Sequence[Tensor]) -> Verdicts | None:
    """Ask the judge; None where it cannot speak.

    That is: no object of the world in the prompt, or clips that it does not measure (not square, or
    too short).
    """
    num_frames, _, height, width = clips_F3HW[0].shape
    if height != width or num_frames < MIN_FRAMES:
        return None
    try:
        claims = parse_caption(prompt)
    except ValueError:
        return None
    if any(claim.shape is None for claim in claims.objects):
        return None
    verdicts = [
        judge(clip.float().clamp(0, 1).transpose(0, 1)[None], [prompt])[0] for clip in clips_F3HW
    ]
    names = list(verdicts[0].attributes)
    return Verdicts(
        [Finding(_claim_words(n, claims), [v.attributes[n] for v in verdicts]) for n in names],
        [_seen_words(v.measured, v.background) for v in verdicts],
        [_fault_words(v.defects) for v in verdicts],
    )


def _claim_words(name: str, claims: Claims) -> str:
    """The claim as the prompt makes it: "colour red", "second colour blue"."""
    if name in ("background", "relation"):
        return f"{name} {getattr(claims, name)}"
    second = name.endswith("2")
    kind = name.removesuffix("2")
    return f"{'second ' if second else ''}{kind} {getattr(claims.objects[second], kind)}"


def _seen_words(objects: Sequence[Seen], background: str) -> str:
    return "; ".join([*map(_object_words, objects), f"{background} background"])


def _object_words(seen: Seen) -> str:
    if seen.colour == seen.shape == "none":
        return "no clear object"
    colour = "" if seen.colour == "none" else f"{seen.colour} "
    shape = "object of no clear shape" if seen.shape == "none" else seen.shape
    return f"{colour}{shape}, motion {seen.motion}"


def _fault_words(defects: dict[str, float]) -> str:
    found = [words for name, words in _WORDS.items() if defects.get(name)]
    return ", ".join(found) or "none"

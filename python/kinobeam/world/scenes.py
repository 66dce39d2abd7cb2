"""Scenes of the world: what a caption can say, how it is said, and how it is read back.

Legend: N clips, F frames, H height, W width, O objects of a scene.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from dataclasses import dataclass, replace

COLOURS: tuple[str, ...] = ("red", "yellow", "green", "cyan", "blue", "purple")
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
MOTIONS: tuple[str, ...] = (
    "still", "left", "right", "up", "down", "circling", "growing", "shrinking", "spinning",
)  # fmt: skip
BACKGROUNDS: tuple[str, ...] = ("dark", "light", "gradient", "striped")
SIZES: tuple[str, ...] = ("small", "large")
SPEEDS: tuple[str, ...] = ("slowly", "quickly")
RELATIONS: tuple[str, ...] = ("above", "below", "left of", "right of")

DYNAMICS: dict[str, tuple[str, ...]] = {
    "static": ("still",),
    "medium": ("growing", "shrinking", "spinning"),
    "high": ("left", "right", "up", "down", "circling"),
}
"""Motions by degree of dynamics; the prompt sets of `prompt_set` follow it."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene; `size` and `speed` are None where the caption leaves them open."""

    colour: str
    shape: str
    motion: str
    size: str | None = None
    speed: str | None = None

    def __post_init__(self) -> None:
        _check("colour", self.colour, COLOURS)
        _check("shape", self.shape, SHAPES)
        _check("motion", self.motion, MOTIONS)
        if self.size is not None:
            _check("size", self.size, SIZES)
        if self.speed is not None:
            _check("speed", self.speed, SPEEDS)
        if (self.shape, self.motion) == ("circle", "spinning"):
            raise ValueError("a spinning circle cannot be told from a still one: choose another")


@dataclass(frozen=True, slots=True)
class Scene:
    """One object on a background, or two with `relation` saying where the first stands."""

    objects: tuple[SceneObject, ...]
    background: str
    relation: str | None = None

    def __post_init__(self) -> None:
        _check("background", self.background, BACKGROUNDS)
        if len(self.objects) not in (1, 2):
            raise ValueError(f"a scene has one object or two, got {len(self.objects)}")
        if (len(self.objects) == 2) != (self.relation is not None):
            raise ValueError("a scene has a relation exactly when it has two objects")
        if self.relation is not None:
            _check("relation", self.relation, RELATIONS)
            if self.objects[0].colour == self.objects[1].colour:
                raise ValueError("two objects of a scene have different colours")

    @property
    def main(self) -> SceneObject:
        return self.objects[0]


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}; got {value!r}")


def is_held_out(obj: SceneObject) -> bool:
    """Whether this combination of colour, shape and motion is kept out of all training (12 %)."""
    digest = hashlib.sha256(f"{obj.colour}/{obj.shape}/{obj.motion}".encode()).digest()
    return digest[0] < 31


def single_scenes(*, held_out: bool) -> list[Scene]:
    """Every one-object scene without size or speed, of the training or of the held-out part."""
    return [
        Scene((obj,), background)
        for obj in _all_objects()
        if is_held_out(obj) == held_out
        for background in BACKGROUNDS
    ]


def _all_objects() -> list[SceneObject]:
    return [
        SceneObject(colour, shape, motion)
        for colour, shape, motion in itertools.product(COLOURS, SHAPES, MOTIONS)
        if (shape, motion) != ("circle", "spinning")
    ]


def sample_scene(
    rng: random.Random,
    *,
    held_out: bool = False,
    details: bool = False,
    two_objects: bool = False,
) -> Scene:
    """Draw a scene of one object (`details` adds size and speed) or of two with a relation."""
    candidates = [o for o in _ALL_OBJECTS if is_held_out(o) == held_out]
    first = rng.choice(candidates)
    background = rng.choice(BACKGROUNDS)
    if not two_objects:
        return Scene((_with_details(rng, first) if details else first,), background)
    others = [o for o in candidates if o.colour != first.colour and o.motion == "still"]
    return Scene((first, rng.choice(others)), background, rng.choice(_relations_for(first.motion)))


def _with_details(rng: random.Random, obj: SceneObject) -> SceneObject:
    size = None if obj.motion in ("growing", "shrinking") else rng.choice((None, *SIZES))
    speed = rng.choice((None, *SPEEDS)) if obj.motion in DYNAMICS["high"][:4] else None
    return replace(obj, size=size, speed=speed)


def _relations_for(motion: str) -> tuple[str, ...]:
    """Relations that stay true along the whole motion."""
    if motion in ("left", "right"):
        return RELATIONS[:2]
    if motion in ("up", "down"):
        return RELATIONS[2:]
    return RELATIONS


_ALL_OBJECTS = _all_objects()

_VERBS: dict[str, tuple[str, ...]] = {
    "still": ("stays still", "does not move", "rests"),
    "left": ("moves left", "slides to the left", "drifts left"),
    "right": ("moves right", "slides to the right", "drifts right"),
    "up": ("moves up", "rises", "climbs up"),
    "down": ("moves down", "falls", "sinks down"),
    "circling": ("moves in a circle", "goes around", "orbits"),
    "growing": ("grows", "gets bigger", "expands"),
    "shrinking": ("shrinks", "gets smaller", "contracts"),
    "spinning": ("spins", "rotates", "turns on the spot"),
}
_ADJECTIVES: dict[str, str] = {"still": "still", "growing": "growing", "shrinking": "shrinking"}
_PLACES: dict[str, tuple[str, ...]] = {
    "dark": ("on a dark background", "against black"),
    "light": ("on a light background", "against white"),
    "gradient": ("on a gradient background", "against a gray gradient"),
    "striped": ("on a striped background", "against gray stripes"),
}
NUM_PARAPHRASES = 6
"""Distinct wordings `caption` has for a one-object scene (three verbs, two places)."""


def caption(scene: Scene, paraphrase: int = 0) -> str:
    """Say a scene in words; `paraphrase` (0 is the plain wording) picks verbs and place.

    Example:
        >>> caption(Scene((SceneObject("red", "circle", "left"),), "dark"))
        'a red circle moves left on a dark background'
    """
    first = scene.main
    verb = _VERBS[first.motion][paraphrase % 3]
    speed = f" {first.speed}" if first.speed else ""
    words = f"a {_noun(first)} {verb}{speed}"
    if scene.relation is not None:
        second = scene.objects[1]
        relation = {"left of": "to the left of", "right of": "to the right of"}
        where = relation.get(scene.relation, scene.relation)
        words += f" {where} a {_ADJECTIVES.get(second.motion, second.motion)} {_noun(second)}"
    return f"{words} {_PLACES[scene.background][paraphrase // 3 % 2]}"


def _noun(obj: SceneObject) -> str:
    return " ".join(w for w in (obj.size, obj.colour, obj.shape) if w)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caption says of one object; None where it says nothing."""

    colour: str | None
    shape: str | None
    motion: str | None
    size: str | None = None
    speed: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a caption says, as `parse_caption` reads it."""

    objects: tuple[Claim, ...]
    background: str | None
    relation: str | None = None


_RELATION_PATTERN = re.compile(
    r"\b(above|below|to the left of|to the right of|left of|right of)\b (?=an? )"
)


def parse_caption(text: str) -> Claims:
    """Read a caption back into what it claims; words outside the grammar are ignored.

    Raises:
        ValueError: nothing in the text belongs to the world's grammar.

    Example:
        >>> parse_caption("a red circle moves left on a dark background").objects[0].motion
        'left'
    """
    words = " ".join(text.lower().replace(",", " ").replace(".", " ").split())
    background = _find(words, {b: places for b, places in _PLACES.items()})
    for places in _PLACES.values():
        for place in places:
            words = words.replace(place, " ")
    match = _RELATION_PATTERN.search(words)
    parts = [words] if match is None else [words[: match.start()], words[match.end() :]]
    relation = None if match is None else match.group(1).removeprefix("to the ")
    claims = Claims(tuple(_parse_object(p) for p in parts), background, relation)
    empty = Claim(None, None, None)
    if background is None and all(o == empty for o in claims.objects):
        raise ValueError(
            f"caption {text!r} says nothing the world knows: expected words such as "
            f"{caption(_EXAMPLE)!r}"
        )
    return claims


_EXAMPLE = Scene((SceneObject("red", "circle", "left"),), "dark")


def _parse_object(words: str) -> Claim:
    motions = {m: (*verbs, *_ADJECTIVES.get(m, m).split()) for m, verbs in _VERBS.items()}
    return Claim(
        colour=_find(words, {c: (c,) for c in COLOURS}),
        shape=_find(words.replace("in a circle", " "), {s: (s,) for s in SHAPES}),
        motion=_find(words, motions),
        size=_find(words, {s: (s,) for s in SIZES}),
        speed=_find(words, {s: (s,) for s in SPEEDS}),
    )


def _find(words: str, phrases: dict[str, tuple[str, ...]]) -> str | None:
    """The key with the longest phrase that stands in `words` as whole words."""
    hits = [
        (len(p), key)
        for key, options in phrases.items()
        for p in options
        if re.search(rf"\b{re.escape(p)}\b", words)
    ]
    return max(hits)[1] if hits else None


def prompt_set(name: str, count: int, *, seed: int = 0, held_out: bool = True) -> list[str]:
    """Draw `count` one-object prompts of a degree of dynamics, or `"all"` of them together.

    Args:
        name: `"static"`, `"medium"`, `"high"` or `"all"`.
        count: how many; distinct while enough scenes exist, then repeating in other words.
        seed: fixes the draw.
        held_out: draw combinations that training never sees.

    Returns:
        The prompts, every motion of the set about equally often.
    """
    motions = MOTIONS if name == "all" else DYNAMICS.get(name)
    if motions is None:
        raise ValueError(f"prompt set: expected all, {', '.join(DYNAMICS)}; got {name!r}")
    rng = random.Random(f"{name}/{seed}")
    by_motion = {
        m: [s for s in single_scenes(held_out=held_out) if s.main.motion == m] for m in motions
    }
    by_motion = {m: rng.sample(s, len(s)) for m, s in by_motion.items() if s}
    rounds = itertools.count()
    prompts: list[str] = []
    while len(prompts) < count:
        i = next(rounds)
        for scenes in by_motion.values():
            word = i // len(scenes) % NUM_PARAPHRASES
            prompts.append(caption(scenes[i % len(scenes)], word))
    return prompts[:count]

"""Scenes: what can be said, that it is read back as it was said, and which part is held out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from kinobeam.world.scenes import (
    BACKGROUNDS,
    DYNAMICS,
    MOTIONS,
    NUM_PARAPHRASES,
    Claim,
    Claims,
    Scene,
    SceneObject,
    caption,
    is_held_out,
    parse_caption,
    prompt_set,
    sample_scene,
    single_scenes,
)

HELD_OUT_COUNT = 25
PINNED_HELD_OUT = {
    ("blue", "cross", "right"),
    ("blue", "triangle", "up"),
    ("green", "square", "down"),
    ("red", "cross", "growing"),
    ("yellow", "square", "shrinking"),
}


def claims_of(scene: Scene) -> Claims:
    objects = tuple(Claim(o.colour, o.shape, o.motion, o.size, o.speed) for o in scene.objects)
    return Claims(objects, scene.background, scene.relation)


@pytest.mark.parametrize("paraphrase", range(NUM_PARAPHRASES))
def test_every_single_scene_is_read_back(paraphrase: int) -> None:
    scenes = single_scenes(held_out=False) + single_scenes(held_out=True)
    wrong = [s for s in scenes if parse_caption(caption(s, paraphrase)) != claims_of(s)]
    assert wrong == []


@pytest.mark.parametrize("kind", [{"details": True}, {"two_objects": True}])
def test_sampled_scenes_are_read_back(kind: dict[str, bool]) -> None:
    rng = random.Random(0)
    for number in range(600):
        scene = sample_scene(rng, **kind)
        assert parse_caption(caption(scene, number % NUM_PARAPHRASES)) == claims_of(scene)


def test_paraphrases_are_distinct() -> None:
    scene = Scene((SceneObject("red", "circle", "left"),), "dark")
    assert len({caption(scene, p) for p in range(NUM_PARAPHRASES)}) == NUM_PARAPHRASES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a circle", Claims((Claim(None, "circle", None),), None)),
        ("Something red, against black.", Claims((Claim("red", None, None),), "dark")),
        ("a blue cross moves in a circle", Claims((Claim("blue", "cross", "circling"),), None)),
        ("a red square rises above a still blue circle", Claims(
            (Claim("red", "square", "up"), Claim("blue", "circle", "still")), None, "above")),
    ],
)  # fmt: skip
def test_free_captions_are_read_as_far_as_they_go(text: str, expected: Claims) -> None:
    assert parse_caption(text) == expected


def test_a_caption_outside_the_grammar_is_named() -> None:
    with pytest.raises(ValueError, match="'the stock market' says nothing the world knows"):
        parse_caption("the stock market")


def test_split_is_stable() -> None:
    # Trained weights depend on this split: a change here invalidates them.
    scenes = single_scenes(held_out=True)
    held_out = {(s.main.colour, s.main.shape, s.main.motion) for s in scenes}
    assert len(held_out) == HELD_OUT_COUNT
    assert len(scenes) == HELD_OUT_COUNT * len(BACKGROUNDS)
    assert PINNED_HELD_OUT <= held_out
    assert not any(is_held_out(s.main) for s in single_scenes(held_out=False))
    assert {motion for *_, motion in held_out} == set(MOTIONS)


@pytest.mark.parametrize("held_out", [False, True])
def test_samples_respect_the_split(held_out: bool) -> None:
    rng = random.Random(1)
    for kind in ({}, {"details": True}):
        scenes = [sample_scene(rng, held_out=held_out, **kind) for _ in range(100)]
        assert {is_held_out(s.main) for s in scenes} == {held_out}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SceneObject("pink", "circle", "left"), "colour: expected one of red"),
        (lambda: SceneObject("red", "star", "left"), "shape: expected one of circle"),
        (lambda: SceneObject("red", "circle", "hops"), "motion: expected one of still"),
        (lambda: SceneObject("red", "circle", "spinning"), "spinning circle"),
        (lambda: SceneObject("red", "cross", "up", size="huge"), "size: expected one of small"),
        (lambda: Scene((), "dark"), "one object or two, got 0"),
        (lambda: Scene((SceneObject("red", "cross", "up"),), "plaid"), "background: expected"),
        (lambda: Scene((SceneObject("red", "cross", "up"),), "dark", "above"), "two objects"),
        (lambda: Scene((SceneObject("red", "cross", "up"),) * 2, "dark", "above"), "different"),
        (lambda: prompt_set("wild", 3), "prompt set: expected all, static"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["all", *DYNAMICS])
@pytest.mark.parametrize("held_out", [False, True])
def test_prompt_set_is_balanced_and_fixed_by_its_seed(name: str, held_out: bool) -> None:
    prompts = prompt_set(name, 90, held_out=held_out)
    motions = MOTIONS if name == "all" else DYNAMICS[name]
    counts = Counter(parse_caption(p).objects[0].motion for p in prompts)
    assert set(counts) == set(motions)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert prompts == prompt_set(name, 90, held_out=held_out)
    assert prompts != prompt_set(name, 90, seed=1, held_out=held_out)
    assert prompts[:20] == prompt_set(name, 20, held_out=held_out)


def test_prompt_set_holds_the_split_and_repeats_only_in_other_words() -> None:
    prompts = prompt_set("static", 60)
    spoken = {caption(s, n) for s in single_scenes(held_out=True) for n in range(NUM_PARAPHRASES)}
    assert set(prompts) <= spoken
    assert len(set(prompts)) == len(prompts)

"""The judge: right on rendered clips, and not fooled by wrong captions or broken clips."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from kinobeam.world.judge import DEFECTS, Verdict, accuracy, judge
from kinobeam.world.render import render
from kinobeam.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    NUM_PARAPHRASES,
    RELATIONS,
    SHAPES,
    SIZES,
    SPEEDS,
    Scene,
    SceneObject,
    caption,
    sample_scene,
)

OPTIONS = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "size": SIZES, "speed": SPEEDS}
Clips = tuple[list[Scene], Tensor]


@pytest.fixture(scope="module")
def singles() -> Clips:
    """Every motion, shape, colour and background, a third of them held out of training."""
    rng = random.Random(7)
    scenes = [sample_scene(rng, held_out=n % 3 == 0, details=True) for n in range(300)]
    return scenes, render(scenes, seeds=range(len(scenes)))


@pytest.fixture(scope="module")
def pairs() -> Clips:
    rng = random.Random(8)
    scenes = [sample_scene(rng, two_objects=True) for _ in range(160)]
    return scenes, render(scenes, seeds=range(len(scenes)))


def captions_of(scenes: Sequence[Scene]) -> list[str]:
    return [caption(s, n % NUM_PARAPHRASES) for n, s in enumerate(scenes)]


def judge_scenes(scenes: Sequence[Scene], videos: Tensor) -> list[Verdict]:
    return judge(videos, captions_of(scenes))


def moving(clips: Clips, *motions: str) -> Clips:
    scenes, videos = clips
    rows = [n for n, s in enumerate(scenes) if s.main.motion in motions]
    return [scenes[n] for n in rows], videos[rows]


def defect(verdicts: Sequence[Verdict], name: str) -> float:
    return sum(v.defects[name] for v in verdicts) / len(verdicts)


def blur(videos: Tensor, sigma: float) -> Tensor:
    kernel = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma).square())
    kernel = kernel / kernel.sum()
    frames = pad(videos.flatten(0, 2)[:, None], (3, 3, 3, 3), mode="replicate")
    frames = conv2d(conv2d(frames, kernel[None, None, None]), kernel[None, None, :, None])
    return frames.view_as(videos)


def noisy(videos: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(videos.shape, generator=torch.Generator().manual_seed(0))
    return (videos + sigma * noise).clamp(0, 1)


def altered(scene: Scene, what: str, rng: random.Random) -> Scene | None:
    """The scene with one claim changed, or None where it makes no such claim."""
    if what == "background":
        return replace(
            scene, background=rng.choice([b for b in BACKGROUNDS if b != scene.background])
        )
    if what == "relation":
        number = RELATIONS.index(scene.relation or "")
        return replace(scene, relation=RELATIONS[number ^ 1])
    name, number = what.removesuffix("2"), int(what.endswith("2"))
    now = getattr(scene.objects[number], name)
    objects = list(scene.objects)
    try:
        new = rng.choice([o for o in OPTIONS[name] if o != now])
        objects[number] = replace(objects[number], **{name: new})
        return replace(scene, objects=tuple(objects)) if now else None
    except ValueError:  # a spinning circle, or a pair of one colour
        return None


def test_rendered_clips_are_right(singles: Clips) -> None:
    rates = accuracy(judge_scenes(*singles))
    assert set(rates) == {"colour", "shape", "motion", "size", "speed", "background", "all"}
    assert min(rates.values()) > 0.98


def test_rendered_pairs_are_right(pairs: Clips) -> None:
    rates = accuracy(judge_scenes(*pairs))
    assert {"relation", "colour2", "shape2", "motion2"} < set(rates)
    assert min(rates.values()) > 0.98


def test_rendered_clips_have_no_defects(singles: Clips, pairs: Clips) -> None:
    for clips in (singles, pairs):
        verdicts = judge_scenes(*clips)
        assert set(verdicts[0].defects) == set(DEFECTS)
        assert max(defect(verdicts, name) for name in DEFECTS if name != "sharpness") < 0.01
        assert min(v.defects["sharpness"] for v in verdicts) > 0.4


@pytest.mark.parametrize(("num_frames", "size"), [(5, 32), (16, 32), (16, 64), (9, 48)])
@pytest.mark.parametrize("kind", [{"details": True}, {"two_objects": True}])
def test_other_sizes_and_lengths(num_frames: int, size: int, kind: dict[str, bool]) -> None:
    rng = random.Random(9)
    scenes = [sample_scene(rng, **kind) for _ in range(60)]
    videos = render(scenes, num_frames=num_frames, size=size, seeds=range(60))
    assert accuracy(judge_scenes(scenes, videos))["all"] > 0.98


@pytest.mark.parametrize(
    "soften",
    [
        lambda v: noisy(v, 0.03),
        lambda v: noisy(blur(v, 0.8), 0.03),
        lambda v: noisy(blur(v, 0.6), 0.06),
        lambda v: noisy(torch.lerp(v.mean(1, keepdim=True), v, 0.75), 0.02),
        lambda v: torch.lerp(v.mean(1, keepdim=True), v, 1.2).clamp(0, 1),
        lambda v: v * 0.95 + 0.05,
    ],
    ids=["noise", "blur", "noise and blur", "pale", "garish", "lighter"],
)
def test_soft_noisy_or_pale_clips_stay_right(
    singles: Clips, pairs: Clips, soften: Callable[[Tensor], Tensor]
) -> None:
    for scenes, videos in (singles, pairs):
        assert accuracy(judge_scenes(scenes[:120], soften(videos[:120])))["all"] > 0.95


@pytest.mark.parametrize("what", [*OPTIONS, "background"])
def test_a_wrong_caption_is_noticed(singles: Clips, what: str) -> None:
    expect_noticed(singles, what)


@pytest.mark.parametrize(
    "what", ["colour", "shape", "motion", "background", "relation", "colour2", "shape2", "motion2"]
)
def test_a_wrong_caption_of_two_objects_is_noticed(pairs: Clips, what: str) -> None:
    expect_noticed(pairs, what)


def expect_noticed(clips: Clips, what: str) -> None:
    scenes, videos = clips
    rng = random.Random(10)
    wrong = [altered(s, what, rng) for s in scenes]
    rows = [n for n, s in enumerate(wrong) if s is not None]
    verdicts = judge_scenes([s for s in wrong if s is not None], videos[rows])
    assert len(rows) > 80
    assert sum(not v.attributes[what] for v in verdicts) / len(rows) > 0.98
    others = [all(ok for k, ok in v.attributes.items() if k != what) for v in verdicts]
    assert sum(others) / len(rows) > 0.95


def test_only_what_the_caption_claims_is_judged(singles: Clips) -> None:
    scenes, videos = moving(singles, "left")
    verdict = judge(videos[:1], [f"something {scenes[0].main.colour}"])[0]
    assert verdict.attributes == {"colour": True}
    assert verdict.measured[0].motion == "left"


def test_a_swapped_hue_is_another_colour(singles: Clips) -> None:
    rates = accuracy(judge_scenes(singles[0], singles[1][:, [1, 2, 0]]))
    assert rates["colour"] == 0
    assert min(rates["shape"], rates["motion"], rates["background"]) > 0.98


def test_a_frozen_clip_is_motionless(singles: Clips) -> None:
    scenes, videos = moving(singles, *(m for m in MOTIONS if m != "still"))
    verdicts = judge_scenes(scenes, videos[:, :, :1].expand_as(videos))
    assert accuracy(verdicts)["motion"] == 0
    assert defect(verdicts, "motionless") == 1
    assert {v.measured[0].motion for v in verdicts} == {"still"}


def test_a_clip_run_backwards_moves_the_other_way(singles: Clips) -> None:
    scenes, videos = moving(singles, "left", "right", "up", "down", "growing", "shrinking")
    assert accuracy(judge_scenes(scenes, videos.flip(2)))["motion"] < 0.02


@pytest.mark.parametrize("motion", [m for m in MOTIONS if m != "still"])
def test_shuffled_frames_are_no_motion(singles: Clips, motion: str) -> None:
    scenes, videos = moving(singles, motion)
    verdicts = judge_scenes(scenes, videos[:, :, [3, 7, 0, 5, 2, 6, 1, 4]])
    assert accuracy(verdicts)["motion"] < 0.02
    # A size that jumps deforms the object; a place or an angle that jumps is unnatural motion.
    name = "deformation" if motion in ("growing", "shrinking") else "unnatural_motion"
    assert defect(verdicts, name) > 0.9


def test_a_jumping_object_does_not_move(singles: Clips) -> None:
    scenes, videos = moving(singles, "left", "right", "up", "down")
    verdicts = judge_scenes(scenes, videos[:, :, [0, 0, 0, 0, 7, 7, 7, 7]])
    assert accuracy(verdicts)["motion"] == 0
    assert defect(verdicts, "unnatural_motion") > 0.9


def test_an_object_that_turns_back_is_reversed(singles: Clips) -> None:
    scenes, videos = moving(singles, "left", "right", "up", "down", "growing", "shrinking")
    verdicts = judge_scenes(scenes, videos[:, :, [0, 2, 4, 6, 7, 5, 3, 1]])
    assert accuracy(verdicts)["motion"] == 0
    assert defect(verdicts, "reversal") > 0.95


def test_an_object_missing_in_a_frame_is_unnatural(singles: Clips) -> None:
    scenes, videos = moving(singles, "left", "circling", "still")
    videos = videos.clone()
    videos[:, :, 4] = videos[:, :, 4].mean(1, keepdim=True)
    verdicts = judge_scenes(scenes, videos)
    assert accuracy(verdicts)["motion"] == 0
    assert defect(verdicts, "unnatural_motion") == 1


def test_a_shape_that_changes_is_deformed() -> None:
    def clips(shape: str) -> Clips:
        scenes = [
            Scene((SceneObject(c, shape, "still"),), "dark") for c in COLOURS for _ in range(4)
        ]
        return scenes, render(scenes, seeds=range(len(scenes)))

    (scenes, videos), (_, others) = clips("triangle"), clips("cross")
    videos = torch.cat([videos[:, :, :4], others[:, :, 4:]], 2)
    verdicts = judge_scenes(scenes, videos)
    assert defect(verdicts, "deformation") == 1
    assert accuracy(verdicts)["shape"] == 0


def test_two_blobs_are_not_one_object() -> None:
    first, second = SceneObject("red", "square", "still"), SceneObject("blue", "square", "still")
    videos = render([Scene((first, second), "dark", "above")] * 8, seeds=range(8))
    verdicts = judge(videos, ["a red square stays still on a dark background"] * 8)
    assert accuracy(verdicts) | {"colour": 0} == {
        "colour": 0, "shape": 0, "motion": 0, "background": 1, "all": 0,
    }  # fmt: skip


def test_one_object_is_not_two() -> None:
    scenes = [Scene((SceneObject("red", "square", "still"),), "dark")] * 8
    videos = render(scenes, seeds=range(8))
    verdicts = judge(videos, ["a red square stays still above a still blue circle"] * 8)
    rates = accuracy(verdicts)
    assert max(rates[k] for k in ("relation", "colour2", "shape2", "motion2", "all")) == 0


def test_blur_lowers_sharpness(singles: Clips) -> None:
    scenes, videos = singles[0][:60], singles[1][:60]
    levels = [videos, blur(videos, 0.7), blur(videos, 1.2)]
    sharp, soft, softer = (
        torch.tensor([v.defects["sharpness"] for v in judge_scenes(scenes, x)]) for x in levels
    )
    assert (sharp > soft).all() and (soft > softer).all()


def test_flickering_is_noticed(singles: Clips) -> None:
    scenes, videos = singles[0][:100], singles[1][:100]
    colour = videos.clone()
    colour[:, :, ::2] = videos[:, [1, 2, 0], ::2]
    light = videos + 0.1 * torch.tensor([1.0, -1.0] * 4)[:, None, None]
    for flickering in (colour, light.clamp(0, 1)):
        assert defect(judge_scenes(scenes, flickering), "flicker") > 0.98


@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise", "soft noise", "coloured"])
@pytest.mark.parametrize("pair", [False, True])
def test_a_clip_without_objects_is_wrong(
    singles: Clips, pairs: Clips, kind: str, pair: bool
) -> None:
    scenes = (pairs if pair else singles)[0][:60]
    noise = torch.rand(60, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    videos = {
        "black": torch.zeros_like(noise),
        "white": torch.ones_like(noise),
        "grey": torch.full_like(noise, 0.47),
        "noise": noise,
        "soft noise": blur(noise, 2.0),
        "coloured": torch.tensor([0.9, 0.1, 0.1])[:, None, None, None].expand_as(noise),
    }[kind]
    verdicts = judge_scenes(scenes, videos)
    rates = accuracy(verdicts)
    assert rates["all"] == 0
    # A patch of noise may have the right colour by chance; nothing else may be right.
    assert all(r < 0.05 for name, r in rates.items() if name != "background")
    assert all(r == 0 for name, r in rates.items() if not name.startswith(("background", "colour")))


def test_a_verdict_does_not_depend_on_its_neighbours(singles: Clips, pairs: Clips) -> None:
    scenes, videos = singles[0][:8] + pairs[0][:8], torch.cat([singles[1][:8], pairs[1][:8]])
    captions = captions_of(scenes)
    together = judge(videos, captions)
    alone = [judge(v[None], [c])[0] for v, c in zip(videos, captions, strict=True)]
    assert [v.attributes for v in together] == [v.attributes for v in alone]
    assert [[s.motion for s in v.measured] for v in together] == [
        [s.motion for s in v.measured] for v in alone
    ]


def test_half_precision_and_no_clips(singles: Clips) -> None:
    scenes, videos = singles[0][:20], singles[1][:20]
    assert accuracy(judge_scenes(scenes, videos.bfloat16()))["all"] > 0.95
    assert judge(videos[:0], []) == []
    with pytest.raises(ValueError, match="at least one verdict"):
        accuracy([])


@pytest.mark.parametrize(
    ("videos", "captions", "message"),
    [
        (torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8), ["a circle"], "got torch.uint8"),
        (torch.zeros(1, 8, 3, 32, 32), ["a circle"], r"expected \(N, 3, F, H, W\)"),
        (torch.zeros(3, 8, 32, 32), ["a circle"], r"got \(3, 8, 32, 32\)"),
        (torch.zeros(1, 3, 8, 32, 24), ["a circle"], "H = W"),
        (torch.zeros(1, 3, 4, 32, 32), ["a circle"], "F >= 5"),
        (torch.full((1, 3, 8, 32, 32), -1.0), ["a circle"], r"got \[-1, -1\]; clamp"),
        (torch.full((1, 3, 8, 32, 32), torch.nan), ["a circle"], "nan"),
        (torch.zeros(2, 3, 8, 32, 32), ["a circle"], "each of 2 clips, got 1"),
        (torch.zeros(1, 3, 8, 32, 32), "a circle", "got one string"),
        (torch.zeros(1, 3, 8, 32, 32), ["the stock market"], "'the stock market'"),
    ],
)
def test_errors_say_what_was_expected(videos: Tensor, captions: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(videos, captions)

"""Rendering: seeded, antialiased, inside the frame, and true to the scene."""

from __future__ import annotations

import math
import random

import pytest
import torch

from kinobeam.world.render import RGB, background_image, background_levels, render, shape_coverage
from kinobeam.world.scenes import RELATIONS, SHAPES, Scene, SceneObject, sample_scene

# Areas of the shapes at radius 1.
AREAS = {
    "circle": math.pi * 0.95**2,
    "square": 4 * 0.84**2,
    "triangle": 3 * math.sqrt(3) * 0.56**2,
    "cross": 4 * 0.34 * 2 - (2 * 0.34) ** 2,
}


def sample(count: int, **kind: bool) -> list[Scene]:
    rng = random.Random(0)
    return [sample_scene(rng, **kind) for _ in range(count)]


def chroma(video_NRFHW: torch.Tensor) -> torch.Tensor:
    return video_NRFHW.amax(1) - video_NRFHW.amin(1)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None]


def test_a_seed_fixes_a_clip() -> None:
    scenes = sample(12, details=True)
    assert torch.equal(render(scenes, seeds=range(12)), render(scenes, seeds=range(12)))
    assert not torch.equal(render(scenes, seeds=range(12)), render(scenes, seeds=range(1, 13)))


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    scenes = sample(6, details=True) + sample(6, two_objects=True)
    together = render(scenes, seeds=range(12))
    for n, scene in enumerate(scenes):
        assert torch.equal(render([scene], seeds=[n])[0], together[n])


@pytest.mark.parametrize(("num_frames", "size"), [(8, 32), (5, 48), (16, 64), (1, 32)])
def test_shape_type_and_range(num_frames: int, size: int) -> None:
    scenes = sample(8, details=True) + sample(8, two_objects=True)
    video = render(scenes, num_frames=num_frames, size=size, seeds=range(16))
    assert video.shape == (16, 3, num_frames, size, size)
    assert video.dtype == torch.float32
    assert 0 <= video.min() and video.max() <= 1


def test_no_scenes_give_an_empty_batch() -> None:
    assert render([], seeds=[]).shape == (0, 3, 8, 32, 32)


def test_a_seed_per_scene_is_demanded() -> None:
    with pytest.raises(ValueError, match="one seed per scene: 2 scenes, 1 seeds"):
        render(sample(2), seeds=[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0.12, 0.18, 0.26])
def test_antialiased_area_is_the_true_area(shape: str, radius: float) -> None:
    # Sub-pixel places and angles: an aliased mask would be off by several pixels.
    spots, turns = torch.linspace(0.45, 0.55, 7), torch.linspace(0, 1.5, 7)
    x, y, angle = (t[:, None, None, None] for t in (spots, spots.flip(0), turns))
    masks = shape_coverage(
        torch.full((7,), SHAPES.index(shape)), x, y, torch.full_like(x, radius), angle, 32
    )
    expected = AREAS[shape] * radius**2 * 32**2
    torch.testing.assert_close(
        masks.sum((1, 2, 3)), torch.full((7,), expected), rtol=0.02, atol=0.6
    )


def test_circle_area_within_one_percent() -> None:
    masks = shape_coverage(
        torch.zeros(1, dtype=torch.int64), column(0.51), column(0.48), column(0.2), column(0), 32
    )
    assert masks.sum().item() == pytest.approx(math.pi * (0.95 * 0.2 * 32) ** 2, rel=0.01)


def test_edges_are_antialiased() -> None:
    mask = shape_coverage(
        torch.zeros(1, dtype=torch.int64), column(0.5), column(0.5), column(0.2), column(0), 32
    )
    assert ((mask > 0.05) & (mask < 0.95)).sum() >= 20


@pytest.mark.parametrize("kind", [{"details": True}, {"two_objects": True}])
def test_objects_stay_inside_the_frame(kind: dict[str, bool]) -> None:
    saturation = chroma(render(sample(200, **kind), seeds=range(200)))
    inner = saturation[..., 1:-1, 1:-1].sum((-2, -1))
    assert ((saturation.sum((-2, -1)) - inner) / inner).max() < 0.02


def test_a_mover_keeps_its_size() -> None:
    scenes = [s for s in sample(200, details=True) if s.main.motion in ("left", "up", "circling")]
    mass = chroma(render(scenes, seeds=range(len(scenes)))).sum((-2, -1))
    assert (mass.amax(1) / mass.amin(1)).max() < 1.05


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_are_true_in_every_frame(relation: str) -> None:
    moving = "left" if relation in ("above", "below") else "up"
    first, second = SceneObject("red", "circle", moving), SceneObject("blue", "square", "still")
    scenes = [Scene((first, second), background, relation) for background in ("dark", "light")] * 10
    video = render(scenes, seeds=range(20))
    red = (video[:, 0] - video[:, 2]).clamp_min(0)
    blue = (video[:, 2] - video[:, 0]).clamp_min(0)
    vertical = relation in ("above", "below")
    ramp = torch.arange(32.0)
    places = [(m.sum(-1 if vertical else -2) * ramp).sum(-1) / m.sum((-2, -1)) for m in (red, blue)]
    apart = places[1] - places[0]
    assert (apart if relation in ("above", "left of") else -apart).min() > 2


@pytest.mark.parametrize("colour", sorted(RGB))
def test_the_middle_of_an_object_has_its_colour(colour: str) -> None:
    scene = Scene((SceneObject(colour, "square", "still", size="large"),), "striped")
    frame = render([scene], seeds=[3])[0, :, 0]
    saturation = frame.amax(0) - frame.amin(0)
    row, col = divmod(int(saturation.flatten().argmax()), 32)
    torch.testing.assert_close(frame[:, row, col], torch.tensor(RGB[colour]), rtol=0, atol=0.041)


def test_backgrounds_are_grey_pictures_between_their_levels() -> None:
    for name in ("gradient", "striped"):
        low, high = background_levels(name)
        picture = background_image(name, 32, low=low, high=high)
        assert picture.shape == (32, 32)
        assert picture.min() >= low - 1e-6 and picture.max() <= high + 1e-6
        assert picture.max() - picture.min() > 0.9 * (high - low)
    with pytest.raises(ValueError, match="background: expected one of dark"):
        background_levels("plaid")

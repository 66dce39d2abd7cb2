"""Training that was cut goes on as if it had not been; what it writes is a plain pipeline."""

import itertools
import json
import random
from dataclasses import fields

import pytest
import torch
from diffusers import LattePipeline
from torch import nn
from torch.nn import functional
from transformers import T5Tokenizer

from kinobeam import Engine
from kinobeam.world import base_model, loop
from kinobeam.world.autoencoder import build_vae, decode_latents, encode_videos
from kinobeam.world.clips import draw_captions, draw_clips, draw_scenes
from kinobeam.world.config import StageRecipe, tiny_recipe
from kinobeam.world.loop import train_stage
from kinobeam.world.reward_model import change_one_attribute, degrade, spoil_motion
from kinobeam.world.scenes import Scene, SceneObject
from kinobeam.world.text import build_tokenizer
from kinobeam.world.train import train_in_processes, train_world


class Cut(Exception):
    """The power goes off."""


class TinyNetwork(nn.Module):
    """A matrix and a convolution for the one optimiser, the rest for the other."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(functional.gelu(self.blocks[1](self.blocks[0](x).mean((2, 3)))))


def train_network(folder, cut_at=None):
    calls = itertools.count()

    def loss_fn(model, generator):
        if cut_at is not None and next(calls) == cut_at:
            raise Cut
        x = torch.rand(4, 3, 5, 5, generator=generator)
        error = model(x)[:, 0] - x.mean((1, 2, 3))
        return {"loss": error.square().mean(), "worst": error.abs().max()}

    torch.manual_seed(0)
    recipe = StageRecipe(50, 4, 1e-2, warmup_steps=5)
    model = TinyNetwork()
    return model, train_stage("net", model, loss_fn, recipe, folder)


def assert_same_weights(one: nn.Module, other: nn.Module):
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


# Cut before any checkpoint, just before one, just after one, and after the curve got a row.
@pytest.mark.parametrize("cut_at", [3, 19, 20, 44])
def test_a_stage_that_was_cut_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, cut_at):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 10)
    expected_model, expected = train_network(tmp_path / "whole")
    with pytest.raises(Cut):
        train_network(tmp_path / "cut", cut_at)
    model, ema = train_network(tmp_path / "cut")
    assert_same_weights(ema, expected)
    assert_same_weights(model, expected_model)
    whole = (tmp_path / "whole" / "net.jsonl").read_text()
    assert (tmp_path / "cut" / "net.jsonl").read_text() == whole
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [0, 20, 40]


def test_a_finished_stage_is_not_trained_again(tmp_path):
    _, first = train_network(tmp_path)
    _, second = train_network(tmp_path, cut_at=0)  # the loss is never asked for
    assert_same_weights(first, second)


def test_training_learns(tmp_path):
    train_network(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "net.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert set(rows[0]) == {"step", "loss", "worst"}


def test_the_learning_rate_is_a_trapezoid():
    recipe = StageRecipe(100, 1, 2.0, warmup_steps=10, decay_fraction=0.4)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:61] == pytest.approx([2.0] * 52)
    assert rates[80] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.05)
    assert rates == sorted(rates[:30]) + sorted(rates[30:], reverse=True)
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        StageRecipe(0, 1, 1.0)


def assert_same_files(one, other):
    paths = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert paths == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    assert any(path.suffix == ".safetensors" for path in paths)
    for path in paths:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def test_a_world_that_was_cut_ends_as_an_uninterrupted_one(tiny_world, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    calls, predict = itertools.count(), base_model.predict

    def predict_until_the_cut(*args):
        if next(calls) == 3:
            raise Cut
        return predict(*args)

    monkeypatch.setattr(base_model, "predict", predict_until_the_cut)
    with pytest.raises(Cut):
        train_world(tiny_recipe(), tmp_path / "work", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    train_world(tiny_recipe(), tmp_path / "work", tmp_path / "model")
    assert next(calls) == 6, "two steps were kept, so three before the cut, the cut, and two after"
    assert_same_files(tiny_world, tmp_path / "model")


def test_two_processes_train_a_folder_that_loads(tmp_path):
    train_in_processes(tiny_recipe(), tmp_path / "work", tmp_path / "model", 2)
    out = Engine.from_pretrained(tmp_path / "model")("a red circle moves left", seed=0)
    assert out.frames.shape == (1, 8, 3, 32, 32) and out.frames.isfinite().all()
    for name in ("vae", "base", "reward"):
        rows = (tmp_path / "work" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == [0], "one process writes the curve"


def test_processes_share_the_batch_evenly(tmp_path):
    with pytest.raises(ValueError, match="expected a divisor of the batch size 8, got 3"):
        train_in_processes(tiny_recipe(), tmp_path / "work", tmp_path / "model", 3)


def test_the_folder_is_a_plain_pipeline(tiny_world):
    pipe = LattePipeline.from_pretrained(tiny_world)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        "a red circle moves left",
        num_inference_steps=2,
        video_length=8,
        height=32,
        width=32,
        output_type="pt",
    ).frames
    assert frames.shape == (1, 8, 3, 32, 32) and frames.isfinite().all()
    card = json.loads((tiny_world / "kinobeam.json").read_text())
    assert card["reward"] == {"name": "world", "folder": "reward"}
    assert card["defaults"] == {"num_inference_steps": 4, "guidance_scale": 3.0}


def test_the_folder_names_no_place_of_the_machine(tiny_world):
    place = str(tiny_world.parent)
    assert not [p for p in tiny_world.rglob("*.json") if place in p.read_text()]


def test_the_tokenizer_survives_its_folder(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = T5Tokenizer.from_pretrained(tmp_path)
    text = "a red circle moves left zebra"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert len(loaded) == len(tokenizer)
    words = [piece.removeprefix("▁") for piece in tokenizer.tokenize(text)]
    assert words == ["a", "red", "circle", "moves", "left", "", *"zebra"]
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_every_caption_is_told_in_known_words():
    tokenizer, generator = build_tokenizer(), torch.Generator().manual_seed(0)
    for options in ({}, {"details": True}, {"two_objects": True}):
        captions = draw_captions(draw_scenes(list(range(200)), **options), generator)
        for text in captions:
            pieces = tokenizer.tokenize(text)
            assert len(pieces) == len(text.split()), text
            assert len(pieces) < tiny_recipe().max_caption_tokens


def test_clips_are_drawn_by_seed():
    recipe = tiny_recipe()
    scenes, videos = draw_clips(recipe, [5, 6, 7])
    again, one = draw_clips(recipe, [6])
    assert again == scenes[1:2] and torch.equal(one, videos[1:2])
    assert videos.shape == (3, 3, 8, 32, 32)


# --- hard negatives ---


def difference(one: Scene, other: Scene) -> list[str]:
    """Names of the attributes in which two scenes differ."""
    names = ["background"] * (one.background != other.background)
    names += ["relation"] * (one.relation != other.relation)
    for mine, theirs in zip(one.objects, other.objects, strict=True):
        names += [f.name for f in fields(mine) if getattr(mine, f.name) != getattr(theirs, f.name)]
    return names


def test_change_one_attribute_changes_exactly_one():
    scenes = draw_scenes(list(range(300)))
    changed = [change_one_attribute(s, random.Random(n)) for n, s in enumerate(scenes)]
    names = [difference(s, c) for s, c in zip(scenes, changed, strict=True)]
    assert {len(n) for n in names} == {1}
    assert {n[0] for n in names} == {"colour", "shape", "motion", "background"}
    again = [change_one_attribute(s, random.Random(n)) for n, s in enumerate(scenes)]
    assert again == changed


def test_change_one_attribute_keeps_the_second_object():
    for n, scene in enumerate(draw_scenes(list(range(100)), two_objects=True)):
        try:
            changed = change_one_attribute(scene, random.Random(n))
        except ValueError:
            pytest.fail(f"no other scene was found for {scene}")
        assert len(difference(scene, changed)) == 1
        assert changed.objects[1] == scene.objects[1]


def test_a_circle_never_learns_to_spin():
    circle = Scene((SceneObject("red", "circle", "left"),), "dark")
    for n in range(200):
        first = change_one_attribute(circle, random.Random(n)).main
        assert (first.shape, first.motion) != ("circle", "spinning")


def test_spoil_motion_changes_the_motion_alone():
    moving = [s for s in range(200) if draw_scenes([s])[0].main.motion in ("left", "up", "growing")]
    _, videos = draw_clips(tiny_recipe(), moving[:24])
    spoilt = spoil_motion(videos, torch.Generator().manual_seed(0))
    assert spoilt.shape == videos.shape and spoilt.dtype == videos.dtype
    assert (spoilt != videos).flatten(1).any(1).all()
    assert spoilt.min() >= videos.min() and spoilt.max() <= videos.max()
    again = spoil_motion(videos, torch.Generator().manual_seed(0))
    assert torch.equal(spoilt, again)
    assert spoil_motion(videos[:0], torch.Generator()).shape == (0, 3, 8, 32, 32)


def test_spoil_motion_has_four_ways():
    video = torch.arange(8.0)[:, None, None].expand(8, 4, 4)[None, None].repeat(64, 3, 1, 1, 1)
    kinds = set()
    for clip in spoil_motion(video, torch.Generator().manual_seed(0)):
        order = clip[0, :, 0, 0].long().tolist()
        if order == list(range(8)):
            kinds.add("jumping")  # frames of one colour do not show it
        elif len(set(order)) == 1:
            kinds.add("frozen")
        else:
            kinds.add("reversed" if order == list(range(7, -1, -1)) else "shuffled")
            assert sorted(order) == list(range(8))
    assert kinds == {"frozen", "reversed", "shuffled", "jumping"}


def test_degrade_keeps_the_range():
    recipe = tiny_recipe()
    vae = build_vae(recipe).eval()
    _, videos = draw_clips(recipe, list(range(24)))
    shown = degrade(vae, videos, torch.Generator().manual_seed(0))
    assert shown.shape == videos.shape and shown.dtype == torch.float32
    assert shown.min() >= 0 and shown.max() <= 1
    clean = (shown == videos).flatten(1).all(1)
    assert clean.tolist() == [False] * 12 + [True] * 12, "the second half stays as it was"


def test_latents_are_decoded_as_they_were_encoded():
    vae = build_vae(tiny_recipe()).eval()
    vae.register_to_config(scaling_factor=2.0)
    videos = torch.rand(2, 3, 8, 32, 32)
    latents = encode_videos(vae, videos)
    assert latents.shape == (2, 4, 8, 8, 8)
    frames = (videos[1, :, 3] * 2 - 1)[None]
    one = vae.encode(frames).latent_dist.mean[0] * 2
    assert torch.allclose(latents[1, :, 3], one, atol=1e-5)
    shown = (vae.decode(one[None] / 2).sample[0] / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(decode_latents(vae, latents)[1, :, 3], shown, atol=1e-5)

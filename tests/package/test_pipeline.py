"""The engine against the diffusers pipeline it wraps, and everything a caller may get wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler, UNet2DModel

import kinobeam
from kinobeam import Engine, RewardOutput, SearchConfig
from kinobeam.testing import colour_reward, lively_pipeline, pure_noise

PROMPT = "a red circle moves left"
PROMPTS = [PROMPT, "a blue square rises on a dark background"]
SHAPE = (4, 8, 8, 8)
DLBS = SearchConfig(method="dlbs", num_beams=2, num_candidates=2)


@pytest.fixture(scope="module")
def pipe(tiny_world):
    return lively_pipeline(tiny_world)


@pytest.fixture(scope="module")
def engine(pipe):
    return Engine.from_pipe(pipe)


def plain(pipe, prompt=PROMPT, **options):
    """What diffusers itself makes."""
    sizes = {"video_length": 8, "height": 32, "width": 32, "output_type": "pt"}
    return pipe(prompt, **{**sizes, "num_inference_steps": 4, **options}).frames


# --- parity with diffusers ---


@pytest.mark.parametrize("num_steps", [1, 3, 8])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0, 7.5])
def test_the_engine_is_the_pipeline(pipe, engine, num_steps, guidance_scale):
    latents = torch.randn(1, *SHAPE)
    options = {"num_inference_steps": num_steps, "guidance_scale": guidance_scale}
    theirs = plain(pipe, latents=latents, **options)
    ours = engine(PROMPT, latents=latents, **options).frames
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() < 1e-4
    assert theirs.std() > 0.01, "a flat fixture shows nothing"


def test_guidance_and_the_prompt_matter(engine):
    base = engine(PROMPT, seed=0, guidance_scale=1.0).frames
    assert (engine(PROMPT, seed=0, guidance_scale=5.0).frames - base).abs().max() > 1e-3
    assert (engine(PROMPTS[1], seed=0, guidance_scale=1.0).frames - base).abs().max() > 1e-3


def test_a_negative_prompt_is_the_pipelines(pipe, engine):
    latents = torch.randn(1, *SHAPE)
    options = {"guidance_scale": 4.0, "negative_prompt": "a green cross", "latents": latents}
    ours = engine(PROMPT, num_inference_steps=4, **options).frames
    assert (ours - plain(pipe, **options)).abs().max() < 1e-4


def test_a_long_prompt_is_the_pipelines(pipe, engine):
    prompt = "a small yellow triangle moves in a circle to the left of a still blue square, xyz" * 2
    latents = torch.randn(1, *SHAPE)
    theirs = plain(pipe, prompt, latents=latents, guidance_scale=3.0)
    ours = engine(prompt, latents=latents, guidance_scale=3.0, num_inference_steps=4).frames
    assert (ours - theirs).abs().max() < 1e-4


def test_a_generator_draws_what_the_pipeline_draws(pipe, engine):
    theirs = plain(pipe, generator=torch.Generator().manual_seed(5), guidance_scale=3.0)
    options = {"guidance_scale": 3.0, "num_inference_steps": 4}
    ours = engine(PROMPT, generator=torch.Generator().manual_seed(5), **options)
    assert (ours.frames - theirs).abs().max() < 1e-4
    assert ours.metrics.seed == [5]
    # Two prompts take two draws; each video is what the pipeline makes of its own prompt alone.
    both = engine(PROMPTS, generator=torch.Generator().manual_seed(5), **options).frames
    draws = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    for g, prompt in enumerate(PROMPTS):
        alone = plain(pipe, prompt, latents=draws[g : g + 1], guidance_scale=3.0)
        assert (both[g] - alone[0]).abs().max() < 1e-4


def test_a_seed_starts_from_its_own_noise(pipe, engine):
    theirs = plain(pipe, latents=pure_noise(9, SHAPE), guidance_scale=3.0)
    ours = engine(PROMPT, seed=9, guidance_scale=3.0, num_inference_steps=4).frames
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("output_type", ["pt", "np", "latent", "pil"])
def test_outputs_have_the_pipelines_shapes(pipe, engine, output_type):
    latents = torch.randn(1, *SHAPE)
    options = {"latents": latents, "guidance_scale": 3.0, "output_type": output_type}
    theirs = plain(pipe, **options)
    ours = engine(PROMPT, num_inference_steps=4, **options).frames
    assert type(ours) is type(theirs)
    if output_type == "pil":
        assert [len(video) for video in ours] == [len(video) for video in theirs] == [8]
        assert ours[0][0].size == theirs[0][0].size and ours[0][0].mode == theirs[0][0].mode
        pairs = zip(ours[0], theirs[0], strict=True)
        apart = [np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in pairs]
        assert max(apart) <= 1
        return
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert abs(ours - theirs).max() < 1e-4


def test_half_precision_runs(tiny_world):
    engine = Engine.from_pretrained(tiny_world, dtype=torch.bfloat16)
    out = engine(PROMPT, seed=0, search=DLBS)
    assert out.frames.dtype == torch.float32 and out.frames.isfinite().all()
    assert engine.pipe.transformer.dtype == torch.bfloat16


def test_the_pipeline_is_not_changed(pipe, engine):
    config = dict(pipe.scheduler.config)
    timesteps = pipe.scheduler.timesteps.clone()
    engine(PROMPT, seed=0, num_inference_steps=3)
    assert dict(pipe.scheduler.config) == config
    assert torch.equal(pipe.scheduler.timesteps, timesteps)


# --- seeds ---


def test_a_seed_is_reproducible(engine):
    for search in (None, DLBS):
        options = {"seed": 4, "search": search, "reward": colour_reward}
        first, second = engine(PROMPT, **options), engine(PROMPT, **options)
        assert torch.equal(first.frames, second.frames)
        assert torch.equal(first.rewards, second.rewards)
        other = engine(PROMPT, **{**options, "seed": 5})
        assert not torch.equal(first.frames, other.frames)


def test_each_prompt_may_have_its_seed(engine):
    options = {"search": DLBS, "reward": colour_reward, "micro_batch": 4}
    both = engine(PROMPTS, seed=[4, 2**63 - 1], **options)
    assert both.metrics.seed == [4, 2**63 - 1]
    for g, seed in enumerate([4, 2**63 - 1]):
        alone = engine(PROMPTS[g], seed=seed, **options)
        assert torch.equal(both.frames[g], alone.frames[0])
        assert torch.equal(both.rewards[g], alone.rewards[0])


def test_one_seed_serves_every_prompt(engine):
    both = engine([PROMPT, PROMPT], seed=4)
    assert torch.equal(both.frames[0], both.frames[1])
    assert both.metrics.seed == [4, 4]


def test_without_a_seed_torch_decides(engine):
    torch.manual_seed(1)
    first = engine(PROMPT)
    torch.manual_seed(1)
    assert torch.equal(engine(PROMPT).frames, first.frames)
    assert not torch.equal(engine(PROMPT).frames, first.frames)
    again = engine(PROMPT, seed=first.metrics.seed)
    assert torch.equal(again.frames, first.frames), "the metrics tell the seed that was drawn"


@pytest.mark.parametrize("start", ["seed", "generator", "latents"])
def test_beam_zero_starts_from_the_plain_samples_noise(engine, start):
    def options():
        return {
            "seed": {"seed": 3},
            "generator": {"generator": torch.Generator().manual_seed(3)},
            "latents": {"latents": pure_noise(8, SHAPE), "seed": 3},
        }[start]

    steps = []
    search = SearchConfig(method="best_of_n", num_beams=3)
    common = {"num_inference_steps": 4, "micro_batch": 3}
    engine(PROMPT, search=search, reward=colour_reward, on_step=steps.append, **options(), **common)
    sample = engine(PROMPT, **options(), **common).frames[0].transpose(0, 1)
    assert torch.equal(steps[-1].videos[0], sample)
    assert not torch.equal(steps[-1].videos[1], sample)


# --- rewards ---


def test_the_declared_reward_is_used(tiny_world):
    engine = Engine.from_pretrained(tiny_world)
    out = engine(PROMPTS, seed=0, search=DLBS)
    assert out.metrics.reward == "world"
    assert (out.metrics.num_inference_steps, out.metrics.guidance_scale) == (4, 3.0)
    scored = engine.reward(out.frames.transpose(1, 2), PROMPTS).scores
    assert (scored - out.rewards).abs().max() < 1e-5
    other = engine(PROMPTS, seed=0, search=DLBS, reward=colour_reward)
    assert other.metrics.reward == "colour_reward"


def test_a_plain_sample_is_not_scored_unless_asked(tiny_world):
    engine = Engine.from_pretrained(tiny_world)
    out = engine(PROMPT, seed=0)
    assert out.rewards is None and out.metrics.reward is None
    assert out.search_trace.reward_calls == 0
    scored = engine(PROMPT, seed=0, reward=colour_reward)
    assert torch.equal(scored.frames, out.frames)
    assert torch.equal(scored.rewards, colour_reward(out.frames.transpose(1, 2), [PROMPT]))


def test_a_reward_sees_videos_with_their_own_prompts(engine):
    seen = []

    def reward(videos, prompts):
        assert videos.shape[1:] == (3, 8, 32, 32) and videos.dtype == torch.float32
        assert len(videos) == len(prompts) == 4
        assert videos.min() >= 0 and videos.max() <= 1
        seen.extend(prompts)
        return torch.tensor([float(PROMPTS.index(p)) for p in prompts])

    out = engine(PROMPTS, seed=0, search=DLBS, reward=reward, micro_batch=4, num_inference_steps=3)
    assert out.rewards.tolist() == [0, 1]
    assert seen == (PROMPTS[:1] * 4 + PROMPTS[1:] * 4) * 2 + PROMPTS[:1] * 2 + PROMPTS[1:] * 2


def test_a_reward_may_return_parts(engine):
    def reward(videos, prompts):
        return RewardOutput(videos.mean((1, 2, 3, 4)), {"part": torch.zeros(len(videos))})

    out = engine(PROMPT, seed=0, search=DLBS, reward=reward)
    assert torch.allclose(out.rewards, out.frames.mean((1, 2, 3, 4)), atol=1e-6)


def test_the_search_finds_more_of_the_reward(engine):
    options = {"seed": 0, "reward": colour_reward}
    found = engine(PROMPTS, search=SearchConfig(method="best_of_n", num_beams=6), **options)
    assert (found.rewards >= engine(PROMPTS, **options).rewards).all()


def test_a_result_tells_what_it_cost(engine):
    out = engine(PROMPTS, seed=0, search=DLBS, reward=colour_reward, num_inference_steps=4)
    trace, metrics = out.search_trace, out.metrics
    assert trace.nfe == 2 * (2 + 3 * 4)
    assert trace.decodes == trace.reward_calls == 2 * (3 * 4 + 2)
    assert set(trace.seconds) == {"denoise", "decode", "reward", "select"}
    assert sum(trace.seconds.values()) <= metrics.seconds
    assert (metrics.eta, metrics.num_inference_steps, metrics.micro_batch) == (1.0, 4, 8)
    assert out["frames"] is out.frames


def test_eta_is_zero_without_candidates(engine):
    assert engine(PROMPT, seed=0).metrics.eta == 0
    best = SearchConfig(method="best_of_n", num_beams=2)
    assert engine(PROMPT, seed=0, search=best, reward=colour_reward).metrics.eta == 0
    noisy = engine(PROMPT, seed=0, eta=1.0)
    assert not torch.equal(noisy.frames, engine(PROMPT, seed=0).frames)


def test_micro_batch_of_the_engine_and_of_the_call(pipe):
    engine = Engine.from_pipe(pipe, micro_batch=3)
    assert engine(PROMPT, seed=0).metrics.micro_batch == 3
    assert engine(PROMPT, seed=0, micro_batch=2).metrics.micro_batch == 2


# --- bad input ---


def nan_reward(videos, prompts):
    return torch.full((len(videos),), float("nan"))


BAD_CALLS = {
    "empty prompt": ({"prompt": ""}, ValueError, "prompt: expected text, got ''"),
    "blank prompt": ({"prompt": " \n"}, ValueError, "prompt: expected text"),
    "no prompts": ({"prompt": []}, ValueError, r"prompt: expected text, got \[\]"),
    "a blank among prompts": ({"prompt": ["a", " "]}, ValueError, "prompt: expected text"),
    "number as prompt": ({"prompt": 5}, TypeError, "a string or a list of strings, got 5"),
    "number among prompts": ({"prompt": ["a", 5]}, TypeError, r"strings, got \['a', 5\]"),
    "none as prompt": ({"prompt": None}, TypeError, "a string or a list of strings, got None"),
    "bytes as prompt": ({"prompt": b"a"}, TypeError, "a string or a list of strings, got b'a'"),
    "negative prompt": ({"negative_prompt": None}, TypeError, "expected a string, got None"),
    "frames": ({"num_frames": 9}, ValueError, "num_frames: expected 8, the model's own, got 9"),
    "height": ({"height": 64}, ValueError, "height: expected 32, the model's own, got 64"),
    "width": ({"width": 33}, ValueError, "width: expected 32, the model's own, got 33"),
    "output": ({"output_type": "mp4"}, ValueError, "one of pt, np, pil, latent; got 'mp4'"),
    "no steps": ({"num_inference_steps": 0}, ValueError, "expected 1 to 1000 .*, got 0"),
    "many steps": ({"num_inference_steps": 1001}, ValueError, "1 to 1000 .*, got 1001"),
    "half a step": ({"num_inference_steps": 2.5}, TypeError, "expected an integer, got 2.5"),
    "eta above 1": ({"eta": 1.5}, ValueError, "eta: expected a number from 0 to 1, got 1.5"),
    "eta below 0": ({"eta": -0.1}, ValueError, "eta: expected a number from 0 to 1, got -0.1"),
    "eta as text": ({"eta": "1"}, TypeError, "eta: expected a number, got '1'"),
    "guidance as text": ({"guidance_scale": "7"}, TypeError, "guidance_scale: expected a number"),
    "nan guidance": ({"guidance_scale": float("nan")}, ValueError, "expected a finite number"),
    "no micro batch": ({"micro_batch": 0}, ValueError, "micro_batch: expected at least 1, got 0"),
    "negative micro batch": ({"micro_batch": -2}, ValueError, "at least 1, got -2"),
    "half a micro batch": ({"micro_batch": 1.5}, TypeError, "expected an integer, got 1.5"),
    "negative seed": ({"seed": -1}, ValueError, r"seed: .* from 0 to 2\^63 - 1, .*got -1"),
    "large seed": ({"seed": 2**63}, ValueError, "seed: expected one integer from 0 to"),
    "seed as float": ({"seed": 1.5}, ValueError, "seed: expected one integer .*got 1.5"),
    "seed as bool": ({"seed": True}, ValueError, "seed: expected one integer .*got True"),
    "two seeds": ({"seed": [1, 2]}, ValueError, r"or 1 of them, got \[1, 2\]"),
    "seed and generator": (
        {"seed": 1, "generator": torch.Generator()},
        ValueError,
        "seed: got a generator too; give one of the two",
    ),
    "latents and generator": (
        {"latents": torch.zeros(1, *SHAPE), "generator": torch.Generator()},
        ValueError,
        "latents: got a generator too; give one of the two",
    ),
    "generator": ({"generator": 5}, TypeError, "generator: expected a torch.Generator, got 5"),
    "shape of latents": (
        {"latents": torch.zeros(1, 4, 8)},
        ValueError,
        r"latents: expected shape \(1, 4, 8, 8, 8\), got \(1, 4, 8\)",
    ),
    "latents as list": ({"latents": [1.0]}, TypeError, "latents: expected a tensor, got list"),
    "search as text": ({"search": "dlbs"}, TypeError, "a kinobeam.SearchConfig, got 'dlbs'"),
    "search without reward": ({"search": DLBS}, ValueError, "this model declares none; pass rew"),
    "reward by name": ({"reward": "world"}, TypeError, "expected a callable, got str; load one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_says_what_was_expected(engine, name):
    options, error, words = BAD_CALLS[name]
    with pytest.raises(error, match=words):
        engine(**{"prompt": PROMPT, **options})


BAD_SEARCHES = {
    "deterministic": (
        {"eta": 0.0}, ValueError, "eta: 2 candidates .*expected eta > 0, got 0.0; leave eta unset"
    ),
    "nan": ({"reward": nan_reward}, ValueError, r"got NaN for videos \[0, 1, 2, 3\] of 4"),
    "shape": ({"reward": lambda v, p: v.mean((2, 3, 4))}, ValueError, r"\(4,\), got \(4, 3\)"),
    "count": ({"reward": lambda v, p: torch.zeros(1)}, ValueError, r"\(4,\), got \(1,\)"),
    "list": ({"reward": lambda v, p: [0.0] * len(v)}, TypeError, "4 scores .*got list; return"),
    "nothing": ({"reward": lambda v, p: None}, TypeError, "4 scores .*got NoneType"),
    "not callable": ({"reward": 5}, TypeError, "reward: expected a callable, got int"),
    "look-ahead": (
        {"search": SearchConfig(method="dlbs", num_lookahead_steps=9), "num_inference_steps": 4},
        ValueError,
        "num_lookahead_steps: expected at most the 4 sampling steps, got 9",
    ),
    "range": (
        {"search": SearchConfig(method="greedy", search_range=(0.7, 0.6)),
         "num_inference_steps": 4},
        ValueError,
        "none of the 4 timesteps falls into; widen it or take more steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_a_bad_search_says_what_was_expected(engine, name):
    options, error, words = BAD_SEARCHES[name]
    with pytest.raises(error, match=words):
        engine(PROMPT, **{"search": DLBS, "reward": colour_reward, **options})


def test_another_scheduler_is_refused(tiny_world):
    pipe = lively_pipeline(tiny_world)
    pipe.scheduler = EulerDiscreteScheduler()
    engine = Engine.from_pipe(pipe)
    with pytest.raises(TypeError, match="expected DDIMScheduler, got EulerDiscreteScheduler; repl"):
        engine(PROMPT)


def test_another_pipeline_is_refused(tmp_path):
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        layers_per_block=1,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="expected one of LattePipeline; got DDPMPipeline"):
        Engine.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="expected one of LattePipeline; got str"):
        Engine.from_pipe(str(tmp_path))


@pytest.mark.parametrize("micro_batch", [0, 1.5])
def test_an_engine_with_a_bad_micro_batch_is_not_made(pipe, micro_batch):
    with pytest.raises((ValueError, TypeError), match="micro_batch: expected"):
        Engine.from_pipe(pipe, micro_batch=micro_batch)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no model_index.json; name the folder that save_pre"):
        Engine.from_pretrained(tmp_path)


@pytest.mark.parametrize("path", ["/no/such/folder", "no/such/sub/folder"])
def test_a_path_that_is_not_there_is_refused(path):
    with pytest.raises(ValueError, match=f"a hub id, could not load '{path}'"):
        Engine.from_pretrained(path)


def _write_index(text):
    return lambda folder: (folder / "model_index.json").write_text(text)


def _cut_weights(folder):
    for path in (folder / "transformer").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_write_index('{"a'), id="broken index"),
        pytest.param(_write_index("[1]"), id="index is a list"),
        pytest.param(_write_index("{}"), id="empty index"),
        pytest.param(_write_index(json.dumps({"_class_name": "NoPipeline"})), id="no such class"),
        pytest.param(lambda folder: shutil.rmtree(folder / "vae"), id="a part is missing"),
        pytest.param(_cut_weights, id="cut weights"),
    ],
)
def test_a_damaged_folder_is_refused(tiny_world, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(tiny_world, folder)
    damage(folder)
    with pytest.raises(ValueError, match="expected a diffusers pipeline folder .*could not load"):
        Engine.from_pretrained(folder)


def test_a_broken_card_is_refused(tiny_world, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_world, folder)
    (folder / "kinobeam.json").write_text('{"reward"')
    with pytest.raises(ValueError, match="expected JSON in .*kinobeam.json"):
        Engine.from_pretrained(folder)
    (folder / "kinobeam.json").unlink()
    engine = Engine.from_pretrained(folder)
    assert engine.reward is None
    assert (engine.defaults.num_inference_steps, engine.defaults.guidance_scale) == (50, 7.5)
    with pytest.raises(ValueError, match="this model declares none"):
        engine(PROMPT, search=DLBS)


def test_the_observer_hears_every_step(engine):
    steps: list[kinobeam.SearchStep] = []
    engine(PROMPT, seed=0, num_inference_steps=3, on_step=steps.append)
    assert [(s.step, s.num_steps, s.scores_GN, s.best_reward) for s in steps] == [
        (i, 3, None, None) for i in range(3)
    ]

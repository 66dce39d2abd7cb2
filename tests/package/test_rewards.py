import pytest
import torch
from torch.nn import functional

from kinobeam import RewardOutput, load_reward
from kinobeam.engine.types import Reward

PROMPTS = ["a red circle moves left", "a blue square rises on a dark background"]


@pytest.fixture(scope="module")
def reward(tiny_world):
    return load_reward("world", folder=tiny_world / "reward")


def test_the_world_reward_is_the_log_probability_of_a_match(reward):
    videos = torch.rand(2, 3, 8, 32, 32)
    output = reward(videos, PROMPTS)
    assert isinstance(output, RewardOutput) and isinstance(reward, Reward)
    assert output.scores.shape == (2,) and output.scores.dtype == torch.float32
    assert torch.equal(output.scores, functional.logsigmoid(output.details["match_logit"]))
    assert (output.scores <= 0).all()
    assert (output.details["cosine"].abs() <= 1 + 1e-6).all()
    assert torch.equal(reward.model(videos, PROMPTS).match_logit, output.details["match_logit"])


def test_the_world_reward_reads_videos_and_prompts(reward):
    videos = torch.rand(2, 3, 8, 32, 32)
    scores = reward(videos, PROMPTS).scores
    assert (reward(videos.flip(0), PROMPTS).scores != scores).all()
    assert (reward(videos, PROMPTS[::-1]).scores != scores).all()
    half = reward(videos.half(), PROMPTS).scores
    assert half.dtype == torch.float32 and (half - scores).abs().max() < 1e-2


def test_the_world_reward_has_a_gradient_in_the_videos_alone(reward):
    videos = torch.rand(2, 3, 8, 32, 32, requires_grad=True)
    reward(videos, PROMPTS).scores.sum().backward()
    assert videos.grad is not None and videos.grad.abs().sum() > 0
    assert all(p.grad is None for p in reward.model.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 4, 32, 32), (2, 3, 8, 64, 64), (2, 1, 8, 32, 32)])
def test_the_world_reward_refuses_other_clips(reward, shape):
    with pytest.raises(ValueError, match=r"expected videos of shape \(N, 3, 8, 32, 32\), got \(2,"):
        reward(torch.rand(shape), PROMPTS)


def test_a_function_is_loaded_by_name():
    loaded = load_reward("kinobeam.testing:colour_reward")
    assert loaded(torch.zeros(2, 3, 1, 2, 2), PROMPTS).shape == (2,)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope", "expected one of world or 'package.module:function', got 'nope'"),
        (5, "expected one of world or 'package.module:function', got 5"),
        ("os:nope", "reward 'os:nope': module 'os' has no attribute 'nope'"),
        ("no_such_module:f", "reward 'no_such_module:f': No module named 'no_such_module'"),
        ("math:pi", "reward 'math:pi': expected a callable, got float"),
    ],
)
def test_an_unknown_reward_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        load_reward(name)


def test_a_folder_without_a_reward_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a video-text model in .*, found no config.json"):
        load_reward("world", folder=tmp_path)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinobeam.engine.batching import map_rows
from kinobeam.engine.sampler import Models, checked_scores
from kinobeam.engine.types import RewardOutput
from kinobeam.testing import FakeDecoder, FakeDenoiser


@settings(max_examples=50, deadline=None)
@given(buckets=st.lists(st.integers(0, 3), min_size=1, max_size=20), micro_batch=st.integers(1, 8))
def test_map_rows_calls_one_shape_and_keeps_the_order(buckets, micro_batch):
    calls = []

    def function(rows):
        calls.append(rows.tolist())
        return torch.stack([rows, rows * 10], dim=1)

    result = map_rows(function, len(buckets), micro_batch, buckets=buckets)
    rows = torch.arange(len(buckets))
    assert torch.equal(result, torch.stack([rows, rows * 10], dim=1))
    assert {len(call) for call in calls} == {micro_batch}
    assert all(len({buckets[row] for row in call}) == 1 for call in calls)
    fewest = sum(-(-buckets.count(b) // micro_batch) for b in set(buckets))
    assert len(calls) == fewest


def test_a_short_batch_is_filled_by_its_last_row():
    calls = []
    map_rows(lambda rows: calls.append(rows.tolist()) or rows, 5, 3)
    assert calls == [[0, 1, 2], [3, 4, 4]]


def models(prompts, *, micro_batch=3, reward=None, columns=None):
    denoiser = FakeDenoiser()
    conditioning = denoiser.encode(prompts, [""] * len(prompts))
    return Models(
        denoiser,
        FakeDecoder(),
        reward,
        prompts=prompts,
        conditioning=conditioning,
        guidance_scale=2.0,
        micro_batch=micro_batch,
        columns=columns,
    )


def test_rows_meet_their_own_prompt():
    prompts = ["a red circle", "a blue square", "one two three four five six seven eight nine"]
    together = models(prompts)
    latents = torch.randn(7, *together.denoiser.latent_shape)
    owners = [2, 0, 1, 0, 2, 1, 0]
    predicted = together.predict(latents, 500, owners)
    for row, owner in enumerate(owners):
        alone = models([prompts[owner]], micro_batch=1)
        assert torch.equal(predicted[row], alone.predict(latents[row : row + 1], 500, [0])[0])
    assert together.trace.nfe == 7
    assert {rows for rows, _ in together.denoiser.calls} == {3}


def test_a_reward_gets_the_prompts_and_columns_of_its_rows():
    seen = []

    def reward(videos, prompts, **columns):
        seen.append((prompts, columns))
        return torch.tensor([float(len(p)) for p in prompts])

    subject = models(["a", "bb"], reward=reward, columns={"target": [10, 20], "kind": ["x", "y"]})
    scores = subject.score(torch.zeros(4, 3, 2, 4, 4), [0, 1, 1, 0])
    assert scores.tolist() == [1, 2, 2, 1]
    assert seen == [
        (["a", "bb", "bb"], {"target": [10, 20, 20], "kind": ["x", "y", "y"]}),
        (["a", "a", "a"], {"target": [10, 10, 10], "kind": ["x", "x", "x"]}),
    ]
    assert subject.trace.reward_calls == 4, "padding is not counted"
    assert subject.trace.seconds["reward"] > 0


@pytest.mark.parametrize(
    "output",
    [
        torch.tensor([1.0, 2.0]),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0], dtype=torch.float64),
        torch.tensor([1.0, 2.0], requires_grad=True),
        RewardOutput(torch.tensor([1.0, 2.0]), {"part": torch.zeros(2)}),
    ],
)
def test_scores_become_float32(output):
    scores = checked_scores(output, 2)
    assert scores.dtype == torch.float32 and not scores.requires_grad
    assert scores.tolist() == [1, 2]


def test_infinite_scores_are_allowed():
    assert checked_scores(torch.tensor([1.0, -float("inf")]), 2)[1] == -float("inf")


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        ([0.0, 1.0], TypeError, "a tensor of 2 scores or a RewardOutput, got list; return"),
        (None, TypeError, "got NoneType; return torch.tensor"),
        (RewardOutput([0.0, 1.0]), TypeError, "got a RewardOutput whose scores are list"),
        (torch.zeros(2, 1), ValueError, r"shape \(2,\), got \(2, 1\); reduce over frames"),
        (torch.zeros(3), ValueError, r"shape \(2,\), got \(3,\)"),
        (torch.tensor(1.0), ValueError, r"shape \(2,\), got \(\)"),
        (torch.tensor([0.0, float("nan")]), ValueError, r"got NaN for videos \[1\] of 2; .*-inf"),
    ],
)  # fmt: skip
def test_what_is_not_one_score_per_video_is_refused(output, error, words):
    with pytest.raises(error, match=words):
        checked_scores(output, 2)

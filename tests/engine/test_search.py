"""The search loop against the published algorithm, written out again in plain loops."""

from typing import NamedTuple

import pytest
import torch
from diffusers import DDIMScheduler

from kinobeam.engine.config import SearchConfig
from kinobeam.engine.sampler import Models
from kinobeam.engine.schedules import Schedule
from kinobeam.engine.search.beam import Search
from kinobeam.kernels.beam import child_keys, counter_normal, root_keys
from kinobeam.testing import (
    FakeDecoder,
    FakeDenoiser,
    assert_close,
    colour_reward,
    pure_noise,
)

PROMPTS = ["a red circle moves left", "a blue square rises"]
SHAPE = FakeDenoiser().latent_shape
GUIDANCE = 2.5
SCHEDULERS = {
    "epsilon": {"beta_schedule": "scaled_linear", "clip_sample": False},
    "v_prediction": {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "clip_sample": False,
    },
}


class Run(NamedTuple):
    latents_G: torch.Tensor
    videos_G: torch.Tensor
    rewards_G: torch.Tensor | None
    models: Models
    seen: list


def run(
    config,
    *,
    prompts=PROMPTS[:1],
    seeds=(3,),
    num_steps=6,
    eta=1.0,
    kind="epsilon",
    reward=colour_reward,
    micro_batch=4,
    first=None,
) -> Run:
    denoiser, decoder, seen = FakeDenoiser(), FakeDecoder(), []
    models = Models(
        denoiser,
        decoder,
        reward,
        prompts=prompts,
        conditioning=denoiser.encode(prompts, [""] * len(prompts)),
        guidance_scale=GUIDANCE,
        micro_batch=micro_batch,
    )
    schedule = Schedule.from_diffusers(DDIMScheduler(**SCHEDULERS[kind]), num_steps)
    search = Search(models, schedule, config, eta=eta, observe=seen.append)
    return Run(*search.run(list(seeds), first), models, seen)


class Beam(NamedTuple):
    latents: torch.Tensor
    key: torch.Tensor
    lineage: tuple[int, ...]


class Naive(NamedTuple):
    latents: torch.Tensor
    reward: float
    winner: tuple[int, ...]
    survivors: list[set[tuple[int, ...]]]
    margin: float


def naive_search(prompt, seed, config, *, num_steps, eta, kind) -> Naive:
    """One candidate at a time, in float64, with the scheduler's own step and nothing reused."""
    scheduler = DDIMScheduler(**SCHEDULERS[kind])
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(num_steps)
    times = scheduler.timesteps.tolist()
    denoiser, decoder = FakeDenoiser(), FakeDecoder()
    text = {k: v[None] for k, v in denoiser.encode([prompt], [""])[0].tensors.items()}
    high, low = config.search_range
    inside = [low * 1000 <= t <= high * 1000 for t in times]
    num_beams, pool = config.beams, config.beams * config.candidates

    def network(z, t):
        return denoiser(z[None], torch.tensor([t]), text, GUIDANCE)[0]

    def x0_of(z, t, out):
        a = scheduler.alphas_cumprod[t]
        if kind == "epsilon":
            return (z - (1 - a).sqrt() * out) / a.sqrt(), out
        return a.sqrt() * z - (1 - a).sqrt() * out, a.sqrt() * out + (1 - a).sqrt() * z

    def estimate(z, start):
        slices = config.num_lookahead_steps
        for m in range(slices, 0, -1):
            t, s = start * m // slices, start * (m - 1) // slices
            x0, eps = x0_of(z, t, network(z, t))
            a = scheduler.alphas_cumprod[s]
            z = a.sqrt() * x0 + (1 - a).sqrt() * eps
        return x0

    def score(x0):
        return colour_reward(decoder(x0[None]), [prompt]).item()

    def child(beam, step, ordinal):
        key = child_keys(beam.key, ordinal, step)
        noise = counter_normal(key[None], step, SHAPE)[0].double()
        out = network(beam.latents, times[step])
        moved = scheduler.step(out, times[step], beam.latents, eta=eta, variance_noise=noise)
        return Beam(moved.prev_sample, key, (*beam.lineage, ordinal))

    def ranked(beams, scores):
        return sorted(zip(scores, beams, strict=True), key=lambda pair: -pair[0])

    roots = root_keys([seed], num_beams if inside[0] else 1)[0]
    beams = [
        Beam(counter_normal(k[None], -1, SHAPE)[0].double(), k, (i,)) for i, k in enumerate(roots)
    ]
    survivors, margin = [], float("inf")
    for step in range(num_steps - 1):
        fan = pool // len(beams) if inside[step] else 1
        keep = num_beams if inside[step] and inside[step + 1] else 1
        candidates = [child(beam, step, k) for beam in beams for k in range(fan)]
        if keep < len(candidates):
            scores = [score(estimate(c.latents, times[step + 1])) for c in candidates]
            order = ranked(candidates, scores)
            margin = min(margin, order[keep - 1][0] - order[keep][0])
            candidates = [c for _, c in order[:keep]]
        beams = candidates
        survivors.append({b.lineage for b in beams})
    last = [child(beam, num_steps - 1, 0) for beam in beams]
    order = ranked(last, [score(b.latents) for b in last])
    if len(order) > 1:
        margin = min(margin, order[0][0] - order[1][0])
    reward, best = order[0]
    return Naive(best.latents, reward, best.lineage, survivors, margin)


def lineages(trace, prompt: int) -> tuple[list[set[tuple[int, ...]]], tuple[int, ...]]:
    """Who is alive after each step, told by roots and ordinals, and who wins; from a trace."""
    first = trace.steps[0]
    pool = first.scores or first.kept  # a step that scores nothing keeps everyone
    slots = [(root,) for root in range(len(pool[prompt]) // first.num_candidates)]
    history = []
    for step in trace.steps:
        fan = step.num_candidates
        slots = [(*slots[n // fan], n % fan) for n in step.kept[prompt]]
        history.append(set(slots))
    return history[:-1], slots[0]


MIDDLE, EARLY, LATE = (0.8, 0.3), (1.0, 0.5), (0.5, 0.0)


def dlbs(num_beams: int, num_candidates: int, lookahead: int = 1, **options) -> SearchConfig:
    sizes = {"num_beams": num_beams, "num_candidates": num_candidates}
    return SearchConfig(method="dlbs", num_lookahead_steps=lookahead, **sizes, **options)


CASES = {
    "B4-K2": (dlbs(4, 2), 6),
    "B4-K2-L3": (dlbs(4, 2, 3), 6),
    "B2-K3-L2": (dlbs(2, 3, 2), 5),
    "greedy-K5": (SearchConfig(method="greedy", num_candidates=5), 5),
    "best-of-5": (SearchConfig(method="best_of_n", num_beams=5), 4),
    "middle": (dlbs(3, 2, search_range=MIDDLE), 8),
    "early-L2": (dlbs(2, 2, 2, search_range=EARLY), 6),
    "late": (dlbs(2, 2, search_range=LATE), 6),
    "one-step-inside": (dlbs(1, 4, search_range=(0.55, 0.45)), 6),
    "one-step": (dlbs(4, 2), 1),
    "two-steps": (dlbs(4, 2, 2), 2),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("name", CASES)
def test_search_is_the_published_algorithm(name, kind):
    config, num_steps = CASES[name]
    eta = 0.7 if name == "best-of-5" else 1.0
    seeds = (10, 14)  # of 15 tried, those whose scores are farthest from a tie
    result = run(config, prompts=PROMPTS, seeds=seeds, num_steps=num_steps, eta=eta, kind=kind)
    for g, seed in enumerate(seeds):
        naive = naive_search(PROMPTS[g], seed, config, num_steps=num_steps, eta=eta, kind=kind)
        assert naive.margin > 3e-5, "a fixture whose scores tie shows nothing"
        survivors, winner = lineages(result.models.trace, g)
        assert survivors == naive.survivors
        assert winner == naive.winner
        assert (result.latents_G[g].double() - naive.latents).abs().max() < 1e-5
        assert result.rewards_G[g].item() == pytest.approx(naive.reward, abs=1e-5)


def assert_same_run(one: Run, other: Run):
    assert torch.equal(one.latents_G, other.latents_G)
    assert torch.equal(one.videos_G, other.videos_G)
    assert torch.equal(one.rewards_G, other.rewards_G)
    assert one.models.trace.nfe == other.models.trace.nfe
    assert one.models.trace.steps == other.models.trace.steps


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_candidate_is_best_of_n(eta):
    dlbs = SearchConfig(method="dlbs", num_beams=5, num_candidates=1, num_lookahead_steps=3)
    best = SearchConfig(method="best_of_n", num_beams=5)
    assert_same_run(run(dlbs, eta=eta), run(best, eta=eta))


@pytest.mark.parametrize("lookahead", [1, 3])
def test_one_beam_is_greedy(lookahead):
    options = {"num_candidates": 5, "num_lookahead_steps": lookahead}
    dlbs = SearchConfig(method="dlbs", num_beams=1, **options)
    assert_same_run(run(dlbs), run(SearchConfig(method="greedy", **options)))


def test_best_of_n_is_n_plain_runs():
    best = run(SearchConfig(method="best_of_n", num_beams=6), eta=0.0)
    starts = pure_noise(3, SHAPE, num_roots=6)
    runs = [run(SearchConfig(), eta=0.0, first=start[None]) for start in starts]
    rewards = torch.cat([r.rewards_G for r in runs])
    assert torch.equal(best.seen[-1].scores_GN[0], rewards)
    winner = runs[int(rewards.argmax())]
    assert torch.equal(best.latents_G, winner.latents_G)
    assert torch.equal(best.rewards_G, winner.rewards_G)
    assert torch.equal(best.videos_G, winner.videos_G)


def test_more_starts_are_never_worse():
    rewards = [
        run(SearchConfig(method="best_of_n", num_beams=n), seeds=(2,)).rewards_G.item()
        for n in range(1, 9)
    ]
    assert rewards == sorted(rewards) and rewards[0] < rewards[-1]


@pytest.mark.parametrize("lookahead", [1, 2, 4])
@pytest.mark.parametrize(("num_beams", "num_candidates"), [(4, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("num_prompts", [1, 2])
def test_costs_are_as_promised(num_beams, num_candidates, lookahead, num_prompts):
    config = SearchConfig(
        method="dlbs",
        num_beams=num_beams,
        num_candidates=num_candidates,
        num_lookahead_steps=lookahead,
    )
    # trailing: the last timestep is 166, so that no slice repeats.
    options = {"num_steps": 6, "kind": "v_prediction"}
    result = run(config, prompts=PROMPTS[:num_prompts], seeds=(3,) * num_prompts, **options)
    trace, pool = result.models.trace, num_beams * num_candidates
    searched = 5 * pool if num_candidates > 1 else 0
    forwards = lookahead if num_candidates > 1 else 1
    assert trace.nfe == num_prompts * (num_beams + 5 * pool * forwards)
    assert trace.decodes == trace.reward_calls == num_prompts * (searched + num_beams)
    assert {rows for rows, _ in result.models.denoiser.calls} == {4}, "one shape of every call"
    assert set(result.models.decoder.calls) == {4}


def test_repeated_lookahead_timesteps_cost_nothing():
    config = SearchConfig(method="dlbs", num_beams=2, num_candidates=2, num_lookahead_steps=5)
    result = run(config, num_steps=6)  # leading: the last timestep is 0, where all slices are one
    assert result.models.trace.nfe == 2 + 4 * 4 * 5 + 4 * 1


def test_nothing_is_scored_outside_the_range():
    config = SearchConfig(
        method="dlbs", num_beams=3, num_candidates=2, search_range=(0.8, 0.3), num_lookahead_steps=2
    )
    result = run(config, num_steps=8, kind="v_prediction")
    trace, times = result.models.trace, [step.timestep for step in result.models.trace.steps]
    assert times == [999, 874, 749, 624, 499, 374, 249, 124]
    assert [step.scores is not None for step in trace.steps] == [False] * 2 + [True] * 4 + [
        False,
        True,
    ]
    assert [len(step.kept[0]) for step in trace.steps] == [1, 1, 3, 3, 3, 1, 1, 1]
    assert [step.num_candidates for step in trace.steps] == [1, 1, 6, 2, 2, 2, 1, 1]
    assert trace.decodes == trace.reward_calls == 4 * 6 + 1
    # One beam starts, and each plain step costs one forward, but for the one that was reused.
    assert trace.nfe == 1 + 2 + 4 * 6 * 2 + 1


def test_without_a_reward_nothing_is_scored():
    result = run(SearchConfig(), reward=None)
    assert result.rewards_G is None
    assert result.models.trace.reward_calls == 0 and result.models.trace.decodes == 1
    assert result.models.trace.nfe == 6


def test_a_plain_sample_with_a_reward_is_scored_once():
    result = run(SearchConfig())
    assert result.models.trace.reward_calls == 1
    expected = colour_reward(result.videos_G, PROMPTS[:1])
    assert torch.equal(result.rewards_G, expected)
    assert torch.equal(result.videos_G, run(SearchConfig(), reward=None).videos_G)


@pytest.mark.parametrize("lookahead", [1, 3])
def test_the_reused_prediction_is_a_fresh_forward(lookahead):
    config = SearchConfig(
        method="dlbs", num_beams=3, num_candidates=2, num_lookahead_steps=lookahead
    )
    models = run(config, prompts=PROMPTS, seeds=(3, 4)).models
    schedule = Schedule.from_diffusers(DDIMScheduler(**SCHEDULERS["epsilon"]), 6)
    search = Search(models, schedule, config, eta=1.0)
    beams = search._start([3, 4], None)
    for step in range(5):
        beams = search._advance(beams, step)
        rows, owners = beams.latents_GB.flatten(0, 1), [0, 0, 0, 1, 1, 1]
        fresh = models.predict(rows, schedule.levels[step + 1].timestep, owners)
        assert torch.equal(beams.prediction_GB.flatten(0, 1), fresh)


def test_the_observer_sees_what_the_trace_says():
    config = SearchConfig(method="dlbs", num_beams=2, num_candidates=3)
    result = run(config, prompts=PROMPTS, seeds=(3, 4))
    trace = result.models.trace
    assert [seen.step for seen in result.seen] == list(range(6))
    for seen, step in zip(result.seen, trace.steps, strict=True):
        assert (seen.step, seen.num_steps, seen.timestep) == (step.step, 6, step.timestep)
        assert seen.kept_GB.tolist() == step.kept and seen.rank_GB.tolist() == step.rank
        assert seen.scores_GN.tolist() == step.scores
        assert seen.best_reward == max(max(scores) for scores in step.scores)
        owners = [p for p in PROMPTS for _ in range(len(step.scores[0]))]
        assert torch.equal(colour_reward(seen.videos, owners), seen.scores_GN.flatten())
    for g in range(2):
        assert trace.steps[-1].rank[g] == [0]
        best = max(trace.steps[-1].scores[g])
        assert result.rewards_G[g].item() == best


def test_a_prompt_does_not_depend_on_its_neighbours():
    config = SearchConfig(method="dlbs", num_beams=2, num_candidates=2)
    long = "a small yellow triangle moves in a circle on a dark background"  # another bucket
    prompts, seeds = [*PROMPTS, long], (5, 6, 7)
    together = run(config, prompts=prompts, seeds=seeds)
    for g in range(3):
        alone = run(config, prompts=[prompts[g]], seeds=[seeds[g]])
        assert torch.equal(together.latents_G[g], alone.latents_G[0])
        assert torch.equal(together.rewards_G[g], alone.rewards_G[0])


def test_beam_zero_starts_from_the_given_latents():
    first = torch.randn(1, *SHAPE)
    config = SearchConfig(method="best_of_n", num_beams=3)
    given = run(config, eta=0.0, first=first).seen[-1]
    plain = run(SearchConfig(), eta=0.0, first=first)
    usual = run(config, eta=0.0).seen[-1]
    assert torch.equal(given.videos[0], plain.videos_G[0])
    assert torch.equal(given.videos[1:], usual.videos[1:])


def test_search_raises_the_reward():
    plain = run(SearchConfig(), prompts=PROMPTS, seeds=(3, 4), num_steps=10, eta=1.0)
    config = SearchConfig(method="dlbs", num_beams=4, num_candidates=4)
    found = run(config, prompts=PROMPTS, seeds=(3, 4), num_steps=10)
    assert (found.rewards_G > plain.rewards_G).all()


def test_latents_are_finite_and_close_to_a_float64_run():
    result = run(SearchConfig(), num_steps=50, eta=0.0, kind="v_prediction")
    naive = naive_search(PROMPTS[0], 3, SearchConfig(), num_steps=50, eta=0.0, kind="v_prediction")
    assert_close("latents", result.latents_G[0], naive.latents, floor=1e-5)


@pytest.mark.parametrize(
    ("options", "eta", "words"),
    [
        ({}, 0.0, "eta: 2 candidates .* expected eta > 0, got 0.0; leave eta unset"),
        ({"num_lookahead_steps": 7}, 1.0, "num_lookahead_steps: expected at most the 6 .* got 7"),
        ({"search_range": (0.62, 0.6)}, 1.0, "search_range: .* none of the 6 timesteps .* widen"),
        ({"search_range": (0.1, 0.0)}, 1.0, "search_range: .* at least one step before the last"),
        ({"num_candidates": 1, "search_range": (0.8, 0.2)}, 1.0, "search_range: one candidate"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(options, eta, words):
    config = SearchConfig(**{"method": "dlbs", "num_beams": 2, "num_candidates": 2, **options})
    with pytest.raises(ValueError, match=words):
        run(config, eta=eta)

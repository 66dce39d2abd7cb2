"""Equal bits at an equal micro_batch, equal selections across them; on the world's own models."""

import pytest
import torch

from kinobeam import Engine, SearchConfig
from kinobeam.adapters.latte import LatteDecoder, LatteDenoiser
from kinobeam.rewards import load_reward
from kinobeam.rewards.world import WorldReward
from kinobeam.testing import lively_pipeline
from kinobeam.world.config import WorldRecipe
from kinobeam.world.reward_model import build_video_text_model

# The last one has more than 16 tokens: another bucket of text.
PROMPTS = [
    "a red circle moves left",
    "a blue square rises on a dark background",
    "a small yellow triangle moves in a circle to the left of a still blue square "
    "against gray stripes",
]
SEEDS = [7, 8, 9]
# Scores of the last candidate kept and the first one dropped differ by so many roundings.
MARGIN = 10
SEARCH = SearchConfig(method="dlbs", num_beams=2, num_candidates=2, num_lookahead_steps=2)
MICRO_BATCHES = [1, 2, 3, 8]


@pytest.fixture(scope="module")
def engine(tiny_world):
    model = load_reward("world", folder=tiny_world / "reward").model
    with torch.no_grad():  # a head that tells clips apart, so that selections have a margin
        model.match_head.weight.normal_(generator=torch.Generator().manual_seed(0))

    def log_odds(videos, prompts):  # unlike their probability, they never saturate
        return model(videos, prompts).match_logit

    return Engine(lively_pipeline(tiny_world), reward=log_odds)


def generate(engine, picks, micro_batch):
    return engine(
        [PROMPTS[i] for i in picks],
        seed=[SEEDS[i] for i in picks],
        num_inference_steps=4,
        guidance_scale=3.0,
        search=SEARCH,
        micro_batch=micro_batch,
    )


@pytest.fixture(scope="module")
def references(engine):
    return {size: generate(engine, [0, 1, 2], size) for size in MICRO_BATCHES}


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("picks", [[2, 0, 1], [1, 0], [0], [1], [2]], ids=str)
def test_a_video_has_the_same_bits_in_any_company(engine, references, micro_batch, picks):
    out, reference = generate(engine, picks, micro_batch), references[micro_batch]
    for row, i in enumerate(picks):
        assert torch.equal(out.frames[row], reference.frames[i])
        assert torch.equal(out.rewards[row], reference.rewards[i])
        for mine, theirs in zip(out.search_trace.steps, reference.search_trace.steps, strict=True):
            assert mine.scores[row] == theirs.scores[i]
            assert mine.kept[row] == theirs.kept[i]


def smallest_margin(trace) -> float:
    """The least gap between the last candidate kept and the first one dropped."""
    gaps = []
    for step in trace.steps:
        for scores, kept in zip(step.scores, step.kept, strict=True):
            dropped = [s for n, s in enumerate(scores) if n not in kept]
            gaps.append(min(scores[n] for n in kept) - max(dropped))
    return min(gaps)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES[1:])
def test_micro_batch_changes_roundings_only(references, micro_batch):
    one, other = references[1], references[micro_batch]
    margin = smallest_margin(one.search_trace)
    apart = max(
        abs(a - b)
        for mine, theirs in zip(one.search_trace.steps, other.search_trace.steps, strict=True)
        for a, b in zip(sum(mine.scores, []), sum(theirs.scores, []), strict=True)
    )
    print(f"smallest margin of scores {margin:.3g}, largest rounding {apart:.3g}")
    assert margin > MARGIN * apart, "selections may flip on a fixture without a margin"
    assert [s.kept for s in one.search_trace.steps] == [s.kept for s in other.search_trace.steps]
    assert (one.frames - other.frames).abs().max() < 1e-4
    assert (one.rewards - other.rewards).abs().max() < 1e-4
    assert one.frames.std() > 0.01, "a fixture whose videos are flat shows nothing"


def test_prompts_and_seeds_matter(references):
    frames = references[1].frames
    assert (frames[0] - frames[1]).abs().max() > 0.01
    assert (frames[1] - frames[2]).abs().max() > 0.01


@pytest.fixture(scope="module")
def full_size():
    """Networks of the size that ships, with random weights."""
    from diffusers import LattePipeline

    from kinobeam.world.autoencoder import build_vae
    from kinobeam.world.base_model import build_scheduler, build_text_encoder, build_transformer
    from kinobeam.world.text import build_tokenizer

    torch.manual_seed(0)
    recipe, tokenizer = WorldRecipe(), build_tokenizer()
    transformer = build_transformer(recipe)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.05)
    pipe = LattePipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(recipe, len(tokenizer)).eval(),
        vae=build_vae(recipe).eval(),
        transformer=transformer.eval(),
        scheduler=build_scheduler(),
    )
    return pipe, WorldReward(build_video_text_model(recipe))


ORDERS = [[2, 0, 1], [1, 1, 0], [0, 2, 2]]


def test_a_row_of_the_denoiser_has_the_same_bits_in_any_place(full_size):
    denoiser = LatteDenoiser(full_size[0])
    conditioning = denoiser.encode([*PROMPTS[:2], "a green cross spins"], [""] * 3)
    latents, times = torch.randn(3, *denoiser.latent_shape), torch.full((3,), 500)

    def call(rows):
        own = [conditioning[r].tensors for r in rows]
        tensors = {name: torch.stack([t[name] for t in own]) for name in own[0]}
        return denoiser(latents[rows], times, tensors, 3.0)

    expected = call([0, 1, 2])
    for order in ORDERS:
        assert torch.equal(call(order), expected[order])


def test_a_row_of_the_decoder_has_the_same_bits_in_any_place(full_size):
    decoder = LatteDecoder(full_size[0])
    latents = torch.randn(3, 4, 8, 8, 8)
    expected = decoder(latents)
    for order in ORDERS:
        assert torch.equal(decoder(latents[order]), expected[order])


def test_a_row_of_the_reward_has_the_same_bits_in_any_place(full_size):
    reward, videos = full_size[1], torch.rand(3, 3, 8, 32, 32)
    expected = reward(videos, PROMPTS).scores
    for order in ORDERS:
        scores = reward(videos[order], [PROMPTS[i] for i in order]).scores
        assert torch.equal(scores, expected[order])

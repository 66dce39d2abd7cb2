import pytest
import torch
from diffusers import DDIMScheduler

from kinobeam.engine.schedules import Schedule
from kinobeam.engine.search.lookahead import look_ahead
from kinobeam.testing import assert_close

SHAPE = (3, 4, 3, 2, 2)


def network(latents, timestep):
    return torch.tanh(latents + timestep / 1000)


@pytest.fixture(params=["epsilon", "v_prediction", "sample"])
def schedule(request):
    scheduler = DDIMScheduler(
        prediction_type=request.param, beta_schedule="scaled_linear", clip_sample=False
    )
    return Schedule.from_diffusers(scheduler, 8)


def estimate_by_hand(schedule, latents, start, parts):
    """The published look-ahead, without dropping repeated timesteps."""
    u = latents.double()
    for m in range(parts, 0, -1):
        t, s = (start * m) // parts, (start * (m - 1)) // parts
        a, b = schedule.alphas_cumprod[t], schedule.alphas_cumprod[s]
        e = network(u, t)
        if schedule.prediction_type == "epsilon":
            x0, eps = (u - (1 - a).sqrt() * e) / a.sqrt(), e
        elif schedule.prediction_type == "sample":
            x0, eps = e, (u - a.sqrt() * e) / (1 - a).sqrt()
        else:
            x0, eps = a.sqrt() * u - (1 - a).sqrt() * e, a.sqrt() * e + (1 - a).sqrt() * u
        u = b.sqrt() * x0 + (1 - b).sqrt() * eps
    return x0


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_look_ahead_is_the_published_one(schedule, step, parts):
    latents = torch.randn(SHAPE, dtype=torch.float64)
    start = schedule.levels[step + 1].timestep
    expected = estimate_by_hand(schedule, latents, start, parts)
    actual = look_ahead(schedule, step, latents, parts, network)
    assert_close("x0", actual.x0_R, expected, floor=1e-9)
    assert torch.equal(actual.prediction_R, network(latents, start))


@pytest.mark.parametrize("parts", [1, 4, 60])
def test_repeated_timesteps_are_not_evaluated_twice(schedule, parts):
    times = []

    def predict(latents, timestep):
        times.append(timestep)
        return network(latents, timestep)

    # From timestep 0 (the last one of this spacing) every slice is 0.
    look_ahead(schedule, 6, torch.randn(SHAPE), parts, predict)
    assert times == [0]
    times.clear()
    look_ahead(schedule, 5, torch.randn(SHAPE), parts, predict)
    assert len(times) == len(set(times)) == parts, "125 has 60 different slices"
    assert times == sorted(times, reverse=True)


def test_one_part_is_the_posterior_mean(schedule):
    latents = torch.randn(SHAPE, dtype=torch.float64)
    level = schedule.levels[3]
    prediction = network(latents, level.timestep)
    expected = {
        "epsilon": (latents - level.sigma * prediction) / level.alpha,
        "sample": prediction,
        "v_prediction": level.alpha * latents - level.sigma * prediction,
    }[schedule.prediction_type]
    assert_close("x0", look_ahead(schedule, 2, latents, 1, network).x0_R, expected)

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler

from kinobeam.engine.schedules import Schedule
from kinobeam.testing import assert_close

# 3 and 7 do not divide 1000, 600 has a stride of 1, 1000 takes every timestep.
STEPS = [1, 3, 7, 50, 600, 1000]
SPACINGS = ["leading", "trailing", "linspace"]


def scheduler(**options):
    return DDIMScheduler(**{"clip_sample": False, **options})


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", STEPS)
def test_levels_are_the_schedulers_timesteps(spacing, num_steps):
    theirs = scheduler(timestep_spacing=spacing, beta_schedule="scaled_linear")
    schedule = Schedule.from_diffusers(theirs, num_steps)
    theirs.set_timesteps(num_steps)
    assert schedule.num_steps == num_steps
    assert [level.timestep for level in schedule.levels] == theirs.timesteps.tolist()
    squares = theirs.alphas_cumprod.double()[theirs.timesteps]
    alphas = torch.tensor([level.alpha for level in schedule.levels], dtype=torch.float64)
    sigmas = torch.tensor([level.sigma for level in schedule.levels], dtype=torch.float64)
    assert_close("alpha", alphas, squares.sqrt())
    assert_close("alpha^2 + sigma^2", alphas**2 + sigmas**2, torch.ones_like(alphas))


@pytest.mark.parametrize("to_one", [True, False])
def test_the_last_step_goes_to_the_schedulers_final_level(to_one):
    theirs = scheduler(set_alpha_to_one=to_one)
    last = Schedule.from_diffusers(theirs, 10).next_levels[-1]
    expected = 1.0 if to_one else theirs.alphas_cumprod[0].sqrt().item()
    assert last.timestep == 0
    assert last.alpha == pytest.approx(expected, abs=1e-7)


def test_the_scheduler_is_left_alone():
    theirs = scheduler()
    before = theirs.timesteps.clone()
    Schedule.from_diffusers(theirs, 10)
    assert theirs.num_inference_steps is None
    assert torch.equal(theirs.timesteps, before)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [3, 20])
@pytest.mark.parametrize("parts", [1, 2, 3, 6, 20])
def test_the_lookahead_grid_is_the_papers(spacing, num_steps, parts):
    schedule = Schedule.from_diffusers(scheduler(timestep_spacing=spacing), num_steps)
    for step in range(num_steps - 1):
        start = schedule.levels[step + 1].timestep
        expected = []
        for m in range(parts, 0, -1):
            t = (start * m) // parts
            if t not in expected:
                expected.append(t)
        grid = schedule.lookahead(step, parts)
        assert [level.timestep for level in grid] == expected
        assert grid[0].timestep == start
        for level in grid:
            assert level.alpha**2 == pytest.approx(schedule.alphas_cumprod[level.timestep].item())


@pytest.mark.parametrize("other", [DDPMScheduler, EulerDiscreteScheduler])
def test_another_scheduler_is_refused(other):
    with pytest.raises(TypeError, match=f"expected DDIMScheduler, got {other.__name__}; replace"):
        Schedule.from_diffusers(other(), 10)


@pytest.mark.parametrize(
    ("options", "num_steps", "error", "words"),
    [
        ({}, 0, ValueError, "num_inference_steps: expected 1 to 1000 .*, got 0"),
        ({}, -1, ValueError, "expected 1 to 1000 .*, got -1"),
        ({}, 1001, ValueError, "expected 1 to 1000 .*, got 1001"),
        ({"num_train_timesteps": 100}, 101, ValueError, "expected 1 to 100 "),
        ({}, 2.5, TypeError, "num_inference_steps: expected an integer, got 2.5"),
        ({}, True, TypeError, "num_inference_steps: expected an integer, got True"),
        ({"steps_offset": 1}, 1000, ValueError, "1000 steps with steps_offset 1 begin at .* 1000"),
        ({"thresholding": True}, 10, ValueError, "'thresholding' is not supported: .*set it to F"),
        ({"prediction_type": "flow"}, 10, ValueError, "prediction_type: .*got 'flow'"),
    ],
)
def test_a_refusal_says_why(options, num_steps, error, words):
    with pytest.raises(error, match=words):
        Schedule.from_diffusers(scheduler(**options), num_steps)

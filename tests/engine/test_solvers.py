import itertools

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal

from kinobeam.engine.schedules import Schedule
from kinobeam.engine.solvers import clean_and_noise, ddim, log_prob
from kinobeam.testing import assert_close

SHAPE = (2, 4, 3, 2, 2)
BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2"]
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]

CASES = [
    pytest.param(
        {"prediction_type": prediction, "beta_schedule": betas, "timestep_spacing": spacing},
        id=f"{prediction}-{betas}-{spacing}",
    )
    for prediction, betas, spacing in itertools.product(PREDICTIONS, BETAS, SPACINGS)
] + [
    pytest.param({"set_alpha_to_one": False, "steps_offset": 1}, id="offset-own-last-alpha"),
    pytest.param({"set_alpha_to_one": False, "timestep_spacing": "trailing"}, id="own-last-alpha"),
    pytest.param({"clip_sample": True}, id="clip"),
    pytest.param(
        {"clip_sample": True, "clip_sample_range": 0.3, "prediction_type": "v_prediction"},
        id="clip-0.3-v",
    ),
    pytest.param({"num_train_timesteps": 100}, id="100-timesteps"),
]


def double_scheduler(num_steps: int, **options) -> DDIMScheduler:
    """The scheduler with its own table, in float64: its arithmetic is then an oracle of ours."""
    scheduler = DDIMScheduler(**{"clip_sample": False, **options})
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(num_steps)
    return scheduler


def draw() -> torch.Tensor:
    return torch.randn(SHAPE, dtype=torch.float64)


def step_both(scheduler, schedule, step, eta):
    latents, prediction, noise = draw(), draw(), draw()
    t = int(scheduler.timesteps[step])
    theirs = scheduler.step(prediction, t, latents, eta=eta, variance_noise=noise)
    ours = ddim(schedule, step, latents, prediction, eta=eta)
    return ours, ours.mean + ours.std * noise, theirs


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("num_steps", [1, 7, 20])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_the_schedulers_step(options, num_steps, eta):
    scheduler = double_scheduler(num_steps, **options)
    schedule = Schedule.from_diffusers(scheduler, num_steps)
    for step in range(num_steps):
        ours, latents, theirs = step_both(scheduler, schedule, step, eta)
        assert_close(f"x0 of step {step}", ours.x0, theirs.pred_original_sample, floor=1e-11)
        assert_close(f"latents of step {step}", latents, theirs.prev_sample, floor=1e-11)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_the_schedulers_step_from_pure_noise(spacing, eta):
    """With zero terminal SNR alpha is 0 at the first timestep."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    scheduler = double_scheduler(10, timestep_spacing=spacing, **options)
    schedule = Schedule.from_diffusers(scheduler, 10)
    for step in range(10):
        ours, latents, theirs = step_both(scheduler, schedule, step, eta)
        assert_close(f"x0 of step {step}", ours.x0, theirs.pred_original_sample, floor=1e-11)
        assert latents.isfinite().all()
        if theirs.prev_sample.isfinite().all():  # at eta 1 their square root may fall below 0
            # sqrt(sigma'^2 - std^2) is a difference of equals there: half of the digits are lost.
            floor = 1e-11 if eta < 1 or step else 1e-7
            assert_close(f"latents of step {step}", latents, theirs.prev_sample, floor=floor)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_estimates_add_up_to_the_latents(prediction_type):
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    schedule = Schedule.from_diffusers(scheduler, 10)
    latents, prediction = draw(), draw()
    for level in schedule.levels:
        x0, eps = clean_and_noise(schedule, level, latents, prediction)
        assert_close(
            "alpha x0 + sigma eps", level.alpha * x0 + level.sigma * eps, latents, floor=1e-11
        )


def test_a_true_prediction_is_undone():
    """Latents made from x0 and eps give x0 and eps back, for what each prediction type means."""
    x0, eps = draw(), draw()
    for prediction_type in PREDICTIONS:
        scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
        schedule = Schedule.from_diffusers(scheduler, 10)
        for level in schedule.levels:
            latents = level.alpha * x0 + level.sigma * eps
            truth = {
                "epsilon": eps,
                "sample": x0,
                "v_prediction": level.alpha * eps - level.sigma * x0,
            }[prediction_type]
            back = clean_and_noise(schedule, level, latents, truth)
            assert_close("x0", back[0], x0, floor=1e-9)
            assert_close("eps", back[1], eps, floor=1e-9)


def test_eta_scales_the_spread_and_zero_is_deterministic():
    schedule = Schedule.from_diffusers(DDIMScheduler(), 10)
    latents, prediction = draw(), draw()
    for step in range(10):
        full = ddim(schedule, step, latents, prediction, eta=1.0).std
        assert ddim(schedule, step, latents, prediction, eta=0.25).std == pytest.approx(full / 4)
        assert ddim(schedule, step, latents, prediction, eta=0.0).std == 0
    assert full == 0, "the last step of a schedule that ends at alpha 1 draws no noise"


@pytest.mark.parametrize("std", [1e-3, 0.3, 2.0])
def test_log_prob_is_the_normal_density(std):
    mean, latents = draw(), draw()
    expected = Normal(mean, std).log_prob(latents).flatten(1).sum(1)
    assert_close("log_prob", log_prob(mean, std, latents), expected, floor=1e-6)
    half = log_prob(mean.float(), std, latents.float())
    assert half.dtype == torch.float32 and half.shape == (2,)


def test_log_prob_of_a_deterministic_step_is_refused():
    with pytest.raises(ValueError, match=r"deterministic step .* has no density; use eta > 0"):
        log_prob(draw(), 0.0, draw())


def test_log_prob_has_a_gradient():
    mean = draw().requires_grad_()
    latents = draw()
    log_prob(mean, 0.5, latents).sum().backward()
    assert mean.grad is not None
    assert_close("gradient", mean.grad, (latents - mean.detach()) / 0.25, floor=1e-6)

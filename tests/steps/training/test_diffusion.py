"""The diffusion process agrees with diffusers' own, and weights never divide by zero."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.diffusion import Diffusion, load_process, noise_schedule_changes

diffusers: Any = importlib.import_module("diffusers")
training_utils: Any = importlib.import_module("diffusers.training_utils")
SCHEDULER = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMESTEPS = torch.tensor([0, 1, 250, 999])


def test_noisy_latents_and_targets_are_those_of_diffusers() -> None:
    latents, noise = torch.randn(2, 4, 4, 8, 8)
    for prediction_type, expected in (
        ("epsilon", noise),
        ("v_prediction", SCHEDULER.get_velocity(latents, noise, TIMESTEPS)),
    ):
        noisy, target = Diffusion(SCHEDULER.alphas_cumprod, prediction_type).noisy_and_target(latents, noise, TIMESTEPS)
        torch.testing.assert_close(noisy, SCHEDULER.add_noise(latents, noise, TIMESTEPS))
        torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_diffusers_training_script(prediction_type: str) -> None:
    snr = training_utils.compute_snr(SCHEDULER, TIMESTEPS)
    expected = torch.stack([snr, torch.full_like(snr, 5.0)], dim=1).min(dim=1).values
    expected = expected / (snr if prediction_type == "epsilon" else snr + 1)
    diffusion = Diffusion(SCHEDULER.alphas_cumprod, prediction_type, snr_gamma=5.0)
    torch.testing.assert_close(diffusion.weight_of(TIMESTEPS), expected)


def test_without_gamma_all_samples_weigh_the_same() -> None:
    assert Diffusion(SCHEDULER.alphas_cumprod, "epsilon").weight_of(TIMESTEPS).tolist() == [1.0] * 4


def test_pure_noise_has_a_finite_weight() -> None:
    zero_terminal = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    ).alphas_cumprod.clone()
    zero_terminal[-1] = 0.0
    for prediction_type in ("epsilon", "v_prediction"):
        weights = Diffusion(zero_terminal, prediction_type, snr_gamma=5.0).weight_of(torch.arange(1000))
        assert bool(torch.isfinite(weights).all())
    # Sampling begins at the last timestep: there v weighs max(min(SNR, gamma), 1) / (SNR + 1) = 1.
    assert weights[-1] == 1.0


def test_timesteps_cover_the_schedule_evenly() -> None:
    diffusion = Diffusion(SCHEDULER.alphas_cumprod, "epsilon")
    uniform = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    assert torch.bincount(diffusion.timestep_of(uniform), minlength=1000).tolist() == [5] * 1000
    assert diffusion.timestep_of(torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)).tolist() == [0, 999]


def test_zero_terminal_snr_needs_v_prediction(pretrained: Path) -> None:
    arguments = TrainArguments(zero_terminal_snr=True)
    with pytest.raises(StepError, match="prediction_type v_prediction"):
        load_process(pretrained, arguments, 4, torch.device("cpu"), torch.float32)


def test_zero_terminal_snr_ends_in_pure_noise_and_is_sampled_from_there(pretrained: Path) -> None:
    arguments = TrainArguments(zero_terminal_snr=True, prediction_type="v_prediction")
    diffusion = load_process(pretrained, arguments, 4, torch.device("cpu"), torch.float32)
    latents, noise = torch.ones(2, 1, 4, 2, 2)
    noisy, _ = diffusion.noisy_and_target(latents, 3 * noise, torch.tensor([999]))
    torch.testing.assert_close(noisy, 3 * noise, atol=1e-3, rtol=0)
    assert noise_schedule_changes(arguments, 4)["timestep_spacing"] == "trailing"

"""The objective: latents are scaled once, and a perfect prediction costs nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steps.data.loading.latents import LatentsDataset
from steps.model.families.unet import UNet
from steps.training.diffusion import Diffusion
from steps.training.inputs import CaptionConditioning, InputMaker, Inputs
from steps.training.objective import Objective, resolved_precision
from tests.steps.training.tiny_model import CAPTION_LENGTH, SCALING_FACTOR, tiny_unet

CPU = torch.device("cpu")
ALPHAS = torch.linspace(0.99, 0.01, 1000)


def objective_and_inputs(
    pretrained: Path, latents: Path, precision: str = "float64", prediction: str = "v_prediction", gamma: float = 0.0
) -> tuple[Objective, Inputs]:
    dtype = torch.float64 if precision == "float64" else torch.float32
    captions = CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, dtype), False, CPU)
    diffusion = Diffusion(ALPHAS, prediction, gamma, CPU, dtype)
    rows = np.arange(6, dtype=np.int64)
    maker = InputMaker(0, 0.0, 0.0, diffusion, captions, CPU)
    inputs = maker.training(LatentsDataset(latents).read("train", rows), torch.from_numpy(rows))
    return Objective(UNet(), diffusion, captions, SCALING_FACTOR, precision, CPU), inputs


def oracle(inputs: Inputs, prediction: str, scale: float = SCALING_FACTOR) -> Any:
    """Return a UNet that knows the answer for latents scaled by `scale`."""
    latents = (inputs.mean.double() + inputs.std.double() * inputs.posterior.double()) * scale
    alpha, sigma = ALPHAS[inputs.timesteps].double().sqrt(), (1 - ALPHAS[inputs.timesteps].double()).sqrt()

    def unet(noisy: torch.Tensor, timesteps: torch.Tensor, **named: Any) -> Any:
        v = alpha[:, None, None, None] * inputs.noise - sigma[:, None, None, None] * latents
        return (inputs.noise if prediction == "epsilon" else v,)

    return unet


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_costs_nothing(pretrained: Path, latents: Path, prediction: str) -> None:
    objective, inputs = objective_and_inputs(pretrained, latents, prediction=prediction)
    assert float(objective.losses(oracle(inputs, prediction), inputs).max()) < 1e-12


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_latents_are_scaled_exactly_once(pretrained: Path, latents: Path, factor: float) -> None:
    objective, inputs = objective_and_inputs(pretrained, latents)
    wrong = oracle(inputs, "v_prediction", scale=SCALING_FACTOR * factor)
    assert float(objective.losses(wrong, inputs).min()) > 1e-3


def test_a_loss_is_the_mean_square_of_one_sample(pretrained: Path, latents: Path) -> None:
    objective, inputs = objective_and_inputs(pretrained, latents, prediction="epsilon")

    def silent(noisy: torch.Tensor, *args: Any, **named: Any) -> Any:
        return (torch.zeros_like(noisy),)

    expected = inputs.noise.double().square().mean((1, 2, 3))
    torch.testing.assert_close(objective.losses(silent, inputs), expected)


def test_weights_are_those_of_the_timesteps(pretrained: Path, latents: Path) -> None:
    objective, inputs = objective_and_inputs(pretrained, latents, gamma=5.0)
    unet = tiny_unet().double()
    expected = objective.losses(unet, inputs) * Diffusion(ALPHAS, "v_prediction", 5.0, dtype=torch.float64).weight_of(
        inputs.timesteps
    )
    torch.testing.assert_close(objective.weighted_losses(unet, inputs), expected)
    assert float(expected.detach().min()) > 0


def test_bfloat16_stays_near_float32(pretrained: Path, latents: Path) -> None:
    unet = tiny_unet()
    losses = []
    for precision in ("float32", "bfloat16"):
        objective, inputs = objective_and_inputs(pretrained, latents, precision)
        losses.append(objective.losses(unet, inputs))
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.02)
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolved_precision("auto", CPU) == expected
    assert resolved_precision("float64", CPU) == "float64"

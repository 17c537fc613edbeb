"""Flow: straight paths, Stable Diffusion 3's timesteps, and a model that plain diffusers draws with."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from params.programs import TrainArguments
from params.settings import SettingsError, parse_settings
from steps.data.loading.latents import LatentsDataset
from steps.errors import StepError
from steps.evaluation.captions import Prompt
from steps.evaluation.generator import PictureGenerator, SamplingSettings
from steps.model.families import load_pipeline
from steps.model.families.unet import UNet
from steps.training.diffusion import RectifiedFlow, load_process, shift_of
from steps.training.export import export_model
from steps.training.inputs import CaptionConditioning, InputMaker
from steps.training.model import build_network
from steps.training.objective import Objective
from steps.training.ranks import World
from steps.training.starting_weights import check_starting_weights
from steps.training.state import TrainingState
from tests.steps.training.conftest import MakeJob
from tests.steps.training.tiny_model import CAPTION_LENGTH, SCALING_FACTOR

diffusers: Any = importlib.import_module("diffusers")
CPU = torch.device("cpu")
ARGUMENTS = TrainArguments(precision="float32", prediction_type="flow", timestep_shift=3.0)
QUANTILES = torch.tensor([0.15865525393145707, 0.5, 0.8413447460685429], dtype=torch.float64)


def test_timesteps_are_logit_normal() -> None:
    expected = torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0])) * 1000
    torch.testing.assert_close(RectifiedFlow(shift=1.0).timestep_of(QUANTILES), expected)
    ends = RectifiedFlow(shift=3.0).timestep_of(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ends.isfinite().all() and 0.0 <= float(ends.min()) < float(ends.max()) <= 1000.0


def test_the_shift_is_equation_23_and_goes_by_the_resolution() -> None:
    share = torch.sigmoid(torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(RectifiedFlow(shift=2.0).timestep_of(QUANTILES), 1000 * 2 * share / (1 + share))
    sides = {32: 1.0, 64: 2.0, 128: 4.0, 8: 1.0}
    assert {side: shift_of(0.0, side) for side in sides} == sides
    assert shift_of(3.0, 64) == 3.0


def test_paths_are_those_of_diffusers() -> None:
    latents, noise = torch.randn(2, 3, 4, 8, 8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    timesteps = scheduler.timesteps[[0, 400, 999]]
    noisy, velocity = RectifiedFlow(shift=1.0).noisy_and_target(latents, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.scale_noise(latents, timesteps, noise))
    torch.testing.assert_close(noisy - (timesteps / 1000)[:, None, None, None] * velocity, latents)


def test_a_samples_timestep_depends_on_seed_and_position_alone(pretrained: Path, latents: Path) -> None:
    captions = CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, torch.float32), False, CPU)
    maker = InputMaker(4, 0.0, 0.0, RectifiedFlow(shift=3.0), captions, CPU)
    dataset = LatentsDataset(latents)

    def timesteps(positions: list[int]) -> list[float]:
        rows = dataset.read("train", np.array(positions, np.int64))
        found: list[float] = maker.training(rows, torch.tensor(positions)).timesteps.tolist()
        return found

    whole = timesteps([0, 1, 2, 3, 4, 5])
    assert whole == timesteps([0, 1]) + timesteps([2, 3, 4, 5])
    assert len(set(whole)) == 6


def test_a_perfect_prediction_costs_nothing_and_every_sample_weighs_the_same(pretrained: Path, latents: Path) -> None:
    captions = CaptionConditioning(UNet().reader(pretrained, CAPTION_LENGTH, torch.float64), False, CPU)
    process = RectifiedFlow(shift=3.0, dtype=torch.float64)
    rows = np.arange(6, dtype=np.int64)
    read = LatentsDataset(latents).read("train", rows)
    inputs = InputMaker(0, 0.0, 0.0, process, captions, CPU).training(read, torch.from_numpy(rows))
    clean = (inputs.mean.double() + inputs.std.double() * inputs.posterior.double()) * SCALING_FACTOR

    def knowing(noisy: torch.Tensor, timesteps: torch.Tensor, **named: Any) -> Any:
        return ((noisy - clean) / (timesteps.double() / 1000)[:, None, None, None],)

    def silent(noisy: torch.Tensor, timesteps: torch.Tensor, **named: Any) -> Any:
        return (torch.zeros_like(noisy),)

    objective = Objective(UNet(), process, captions, SCALING_FACTOR, "float64", CPU)
    assert float(objective.losses(knowing, inputs).max()) < 1e-12
    expected = (inputs.noise.double() - clean).square().mean((1, 2, 3))
    torch.testing.assert_close(objective.weighted_losses(silent, inputs), expected)


def test_validation_looks_at_the_same_timesteps_whatever_the_shift() -> None:
    places = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    expected = [62.5, 187.5, 312.5, 437.5, 562.5, 687.5, 812.5, 937.5]
    assert (
        RectifiedFlow(shift=1.0).evenly(places).tolist() == RectifiedFlow(shift=4.0).evenly(places).tolist() == expected
    )


def test_the_exported_model_draws_in_plain_diffusers_with_the_shift_that_it_learnt(
    pretrained: Path, latents: Path, tmp_path: Path
) -> None:
    network = build_network(UNet(), ARGUMENTS, pretrained, LatentsDataset(latents).manifest, CPU)
    state = TrainingState(network, ARGUMENTS, World(rank=0, size=1, local_rank=0, device=CPU))
    export_model(tmp_path, pretrained, state, ARGUMENTS, "", {})
    plain = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    config = plain.scheduler.config
    assert type(plain.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert (config.prediction_type, config.use_flow_sigmas, config.flow_shift) == ("flow_prediction", True, 3.0)
    plain.set_progress_bar_config(disable=True)
    by_hand = plain(
        ["ab", "c"],
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        guidance_scale=3.0,
        num_inference_steps=4,
        output_type="np",
    ).images
    ours = PictureGenerator(load_pipeline(tmp_path, torch.float32), SamplingSettings(3.0, 4, "dpm++", 8, 8), CPU)
    drawn = ours.draw([Prompt(0, "ab", 3, None), Prompt(1, "c", 4, None)])
    assert np.abs(drawn - by_hand * 255.0).max() <= 1
    for name in ("ddim", "euler"):
        with pytest.raises(
            StepError, match=rf"sampler: {name} cannot draw with a model that predicts flow: set dpm\+\+"
        ):
            PictureGenerator(load_pipeline(tmp_path, torch.float32), SamplingSettings(3.0, 4, name, 8, 8), CPU)


def test_weights_that_predicted_flow_are_known_as_such(pretrained: Path, latents: Path, tmp_path: Path) -> None:
    network = build_network(UNet(), ARGUMENTS, pretrained, LatentsDataset(latents).manifest, CPU)
    state = TrainingState(network, ARGUMENTS, World(rank=0, size=1, local_rank=0, device=CPU))
    export_model(tmp_path, pretrained, state, ARGUMENTS, "", {})
    goes_on = ARGUMENTS.model_copy(update={"initial_weights": "model"})
    check_starting_weights(goes_on, tmp_path, pretrained)
    with pytest.raises(StepError, match=r"prediction_type is epsilon, and the starting weights' .* says flow: set"):
        check_starting_weights(TrainArguments(initial_weights="model"), tmp_path, pretrained)
    with pytest.raises(StepError, match=r"prediction_type is flow, and the starting weights' .* says epsilon"):
        check_starting_weights(ARGUMENTS.model_copy(update={"initial_weights": "pretrained"}), pretrained, pretrained)
    again = TrainArguments(initial_weights="model", new_objective=True, precision="float32")
    export_model(tmp_path / "epsilon", tmp_path, state, again, "", {})
    plain = load_pipeline(tmp_path / "epsilon", torch.float32).scheduler.config
    assert (plain.prediction_type, plain["use_flow_sigmas"]) == ("epsilon", False)


def test_a_broken_training_ends_as_an_unbroken_one(make_job: MakeJob) -> None:
    settings = {"prediction_type": "flow", "training_samples": 48, "save_every_samples": 24}
    whole, broken = make_job("whole", **settings), make_job("broken", **(settings | {"training_samples": 24}))
    whole.run()
    broken.run()
    broken.settings["training_samples"] = 48
    (broken.base / "input" / "config" / "hyperparameters.json").unlink()
    data = broken.base / "input" / "data"
    broken.write((data / "pretrained").resolve(), (data / "latents").resolve()).run()
    expected, found = whole.unet(), broken.unet()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert json.loads((whole.model_dir / "scheduler/scheduler_config.json").read_text())["use_flow_sigmas"] is True


@pytest.mark.parametrize("changes", [{"snr_gamma": 5.0}, {"zero_terminal_snr": True}, {"noise_offset": 0.1}])
def test_what_belongs_to_diffusion_is_refused_by_name(changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    with pytest.raises(ValueError, match=f"{name}: flow has none: .*; leave it out, or set prediction_type"):
        TrainArguments(prediction_type="flow", **changes)
    with pytest.raises(ValueError, match="timestep_shift: only flow has one"):
        TrainArguments(timestep_shift=2.0)


def test_a_parameter_set_whose_sampler_cannot_draw_flow_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"evaluate\.sampler: ddim does not draw .* flow; set dpm\+\+"):
        parse_settings("train: {prediction_type: flow}\nevaluate: {sampler: ddim}", "mine.yaml")
    parse_settings("train: {prediction_type: flow}\nevaluate: {sampler: dpm++}", "mine.yaml")


def test_the_process_is_that_of_the_settings(pretrained: Path) -> None:
    process = load_process(pretrained, TrainArguments(prediction_type="flow"), 64, CPU, torch.float32)
    expected = RectifiedFlow(shift=2.0).timestep_of(QUANTILES)
    assert torch.equal(process.timestep_of(QUANTILES), expected)

"""The validation loss compares trainings: nothing but the model changes it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from params.programs import TrainArguments
from steps.training.assembly import assemble
from steps.training.objective import Validation
from steps.training.optimizer_step import batch_plan
from steps.training.ranks import World
from steps.training.state import TrainingState

HEAD = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
ARGUMENTS = TrainArguments(
    precision="float64", global_batch_size=8, micro_batch_size=4, validation_samples=70, ema_decay=0.9
)


@pytest.fixture(scope="module")
def many(pretrained: Path) -> Path:
    from tests.steps.training.tiny_model import write_latents

    return write_latents(pretrained.with_name("many"), pretrained, heldout=75)


@pytest.fixture(scope="module")
def bucketed(pretrained: Path) -> Path:
    from tests.steps.training.tiny_model import write_latents

    shapes = ((4, 8, 2), (4, 4, 4), (4, 2, 8))
    return write_latents(pretrained.with_name("bucketed"), pretrained, train=16, heldout=5, buckets=shapes)


def validation_of(pretrained: Path, latents: Path, **changes: object) -> tuple[Validation, TrainingState]:
    arguments = ARGUMENTS.model_copy(update=changes)
    parts = assemble(arguments, batch_plan(8, arguments.micro_batch_size, 1), HEAD, latents, pretrained, pretrained)
    return parts.validation, parts.state


def test_no_training_setting_changes_it(pretrained: Path, many: Path) -> None:
    reference = validation_of(pretrained, many)
    expected = reference[0].loss(reference[1])
    for changes in (
        {"caption_dropout": 1.0, "noise_offset": 0.5, "snr_gamma": 5.0},
        {"micro_batch_size": 1, "learning_rate": 0.5},
    ):
        validation, state = validation_of(pretrained, many, **changes)
        assert validation.loss(state) == pytest.approx(expected, rel=1e-12)
    other, state = validation_of(pretrained, many, seed=1)
    assert other.loss(state) != pytest.approx(expected), "other weights do"
    assert other.loss(reference[1]) == pytest.approx(expected, rel=1e-12), "the seed itself does not"


def test_ranks_share_the_samples_out(pretrained: Path, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validation, state = validation_of(pretrained, many)
    expected = validation.loss(state)
    shares: list[torch.Tensor] = []

    def share(self: World, tensor: torch.Tensor) -> torch.Tensor:
        shares.append(tensor.clone())
        return tensor

    monkeypatch.setattr(World, "sum_", share)
    for rank in range(3):
        validation._world = dataclasses.replace(HEAD, rank=rank, size=3)
        validation.loss(state)
    together = torch.stack(shares)
    assert ((together != 0).sum(0) == 1).all(), "each sample on one rank"
    assert float(together.sum(0).mean()) == pytest.approx(expected, rel=1e-12)


def test_it_measures_the_average_of_the_weights_and_leaves_training_as_it_was(pretrained: Path, many: Path) -> None:
    validation, state = validation_of(pretrained, many)
    expected = validation.loss(state)
    before = state.snapshot()
    with torch.no_grad():
        for parameter in state.parameters:
            parameter.mul_(3)
    assert validation.loss(state) == pytest.approx(expected, rel=1e-12)
    assert state.average is not None
    for tensor in state.average.tensors:
        tensor.mul_(0.5)
    assert validation.loss(state) != pytest.approx(expected)
    assert state.network.training
    after = state.snapshot()["weights"]
    assert all(torch.equal(after[name], 3 * tensor) for name, tensor in before["weights"].items())


def test_it_takes_what_held_out_samples_there_are(pretrained: Path, latents: Path) -> None:
    assert validation_of(pretrained, latents)[0].samples == 10


def test_buckets_have_their_share_of_the_samples_and_of_the_timesteps(pretrained: Path, bucketed: Path) -> None:
    validation, state = validation_of(pretrained, bucketed, validation_samples=10)
    shapes = [(4, 8, 2), (4, 4, 4), (4, 2, 8)]
    for batch, shape, size in zip(validation._batches, shapes, (3, 3, 4), strict=True):
        inputs = validation._inputs_of(batch)
        assert inputs.mean.shape[1:] == inputs.noise.shape[1:] == shape
        assert inputs.timesteps.tolist() == [int(1000 * (place + 0.5) / size) for place in range(size)]
    assert validation.loss(state) > 0


def test_warming_up_runs_each_shape_of_a_batch_once_as_the_loss_does(pretrained: Path, many: Path) -> None:
    validation, state = validation_of(pretrained, many)
    seen: list[tuple[int, bool, bool]] = []

    def note(unet: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((len(inputs[0]), unet.training, torch.is_grad_enabled()))

    state.network.register_forward_pre_hook(note)
    validation.warm_up(state.network)
    warmed = set(seen)
    assert (len(seen), {size for size, _, _ in seen}) == (2, {32, 6})
    assert state.network.training
    validation.loss(state)
    assert set(seen) == warmed

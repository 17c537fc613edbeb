"""One optimizer step: clipping, AdamW, skipping, accumulation."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.gradients import Gradients
from steps.training.inputs import Inputs
from steps.training.objective import Objective
from steps.training.optimizer_step import BatchPlan, OptimizerStep, batch_plan, learning_rate
from steps.training.ranks import World
from steps.training.state import TrainingState

WORLD = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
ARGUMENTS = TrainArguments(
    training_samples=80, global_batch_size=8, micro_batch_size=8, learning_rate=0.1, warmup_samples=0, ema_decay=0.0
)


class Linear(torch.nn.Module):
    """Stands for the UNet: its weight times each sample's mean is the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))


class LinearObjective(Objective):
    def __init__(self) -> None:
        pass

    def weighted_losses(self, unet: Any, inputs: Inputs) -> torch.Tensor:
        losses: torch.Tensor = inputs.mean @ unet.weight
        return losses


def inputs_of(values: torch.Tensor) -> Inputs:
    unused = torch.zeros(len(values))
    return Inputs(values, unused, unused, unused, unused.long(), unused, unused)


def step_with(
    plan: BatchPlan,
    arguments: TrainArguments = ARGUMENTS,
    objective: Objective | None = None,
    in_place: bool = False,
) -> tuple[OptimizerStep, TrainingState]:
    state = TrainingState(Linear(), arguments, WORLD)
    gradients = Gradients(state, WORLD, arguments.model_copy(update={"cuda_graphs": in_place}))
    return OptimizerStep(arguments, plan, state, gradients, objective or LinearObjective()), state


def test_it_is_torchs_adamw_on_the_clipped_gradient() -> None:
    values = torch.randn(8, 2, dtype=torch.float64) * 5
    step, state = step_with(batch_plan(8, 8, 1))
    expected = Linear()
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.1, weight_decay=0.01)
    for seen in (0, 8, 16):
        result = step.take(inputs_of(values), seen)
        torch.autograd.backward((values @ expected.weight).mean())
        norm = torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(ARGUMENTS, seen, 80)
        optimizer.step()
        optimizer.zero_grad()
        assert float(result.gradient_norm) == pytest.approx(float(norm))
        torch.testing.assert_close(state.parameters[0].detach(), expected.weight.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_add_up_to_the_global_batch(micro_batch_size: int) -> None:
    values = torch.randn(8, 2, dtype=torch.float64)
    whole, of_whole = step_with(batch_plan(8, 8, 1))
    pieces, of_pieces = step_with(batch_plan(8, micro_batch_size, 1))
    first, second = whole.take(inputs_of(values), 0), pieces.take(inputs_of(values), 0)
    torch.testing.assert_close(of_pieces.parameters[0], of_whole.parameters[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-12, atol=0)
    assert float(first.loss) == pytest.approx(float((values @ torch.tensor([1.0, -2.0]).double()).mean()))


def test_gradients_kept_in_place_give_the_same_step() -> None:
    values = torch.randn(8, 2, dtype=torch.float64)
    (fresh, of_fresh), (kept, of_kept) = (
        step_with(batch_plan(8, 4, 1), in_place=in_place) for in_place in (False, True)
    )
    gradient = of_kept.parameters[0].grad
    assert gradient is not None
    address = gradient.data_ptr()
    for seen in (0, 8, 16):
        fresh.take(inputs_of(values), seen)
        kept.take(inputs_of(values), seen)
        assert of_fresh.parameters[0].grad is None
        assert of_kept.parameters[0].grad is gradient
        assert gradient.data_ptr() == address
        assert torch.equal(of_kept.parameters[0], of_fresh.parameters[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    step, state = step_with(batch_plan(8, 4, 1))
    step.take(inputs_of(torch.randn(8, 2, dtype=torch.float64)), 0)
    before = state.snapshot()
    broken = torch.zeros(8, 2, dtype=torch.float64)
    broken[3, 1] = value
    assert float(step.take(inputs_of(broken), 8).skipped) == 1.0
    after = state.snapshot()
    for group, tensors in before.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, after[group][name]), (group, name)
    assert float(step.take(inputs_of(torch.ones(8, 2, dtype=torch.float64)), 16).skipped) == 0.0
    assert not torch.equal(state.snapshot()["weights"]["weight"], before["weights"]["weight"])


def test_the_state_begins_as_the_optimizers_own() -> None:
    _, state = step_with(batch_plan(8, 8, 1))
    prepared = {key: (value.shape, value.dtype) for key, value in state.optimizer.moments[0].items()}
    model = Linear()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.weight.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    own = {key: (value.shape, value.dtype) for key, value in optimizer.state[model.weight].items()}
    assert prepared == own


class Hungry(LinearObjective):
    def weighted_losses(self, unet: Any, inputs: Inputs) -> torch.Tensor:
        return torch.empty(2**60) if len(inputs) > 1 else super().weighted_losses(unet, inputs)


def test_out_of_memory_names_a_micro_batch_that_may_do() -> None:
    step, _ = step_with(batch_plan(8, 8, 1), objective=Hungry())
    with pytest.raises(StepError, match="out of memory with micro_batch_size 8; set micro_batch_size to 4"):
        step.take(inputs_of(torch.ones(8, 2, dtype=torch.float64)), 0)
    smallest, _ = step_with(batch_plan(8, 1, 1), objective=Hungry())
    smallest.take(inputs_of(torch.ones(8, 2, dtype=torch.float64)), 0)


def test_other_errors_stay_what_they_are() -> None:
    class Broken(LinearObjective):
        def weighted_losses(self, unet: Any, inputs: Inputs) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    step, _ = step_with(batch_plan(8, 8, 1), objective=Broken())
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        step.take(inputs_of(torch.ones(8, 2, dtype=torch.float64)), 0)


class NoReading(TorchDispatchMode):
    """Fails where a number is read from a tensor: on a GPU, each such place waits for all that it has to do."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        assert not name.startswith(("aten._local_scalar_dense", "aten.is_nonzero", "aten.nonzero")), name
        return function(*args, **(kwargs or {}))


def test_a_step_reads_nothing_from_the_device() -> None:
    step, state = step_with(batch_plan(8, 4, 1), ARGUMENTS.model_copy(update={"ema_decay": 0.9}))
    before = state.snapshot()["average"]["weight"]
    with NoReading():
        step.take(inputs_of(torch.randn(8, 2, dtype=torch.float64)), 80)
    assert not torch.equal(state.snapshot()["average"]["weight"], before)
    with NoReading(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        torch.ones(1).item()

"""Gradients travel once for each optimizer step, while the backward pass goes on."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from params.programs import TrainArguments
from steps.training.gradients import Gradients
from steps.training.ranks import World
from steps.training.state import TrainingState

WORLD = World(rank=0, size=2, local_rank=0, device=torch.device("cpu"))


@pytest.fixture
def another_rank() -> Iterator[None]:
    """A second rank that is only pretended."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers went out, each time; the other rank's are all 0."""
    found: list[int] = []

    def all_reduce(tensor: torch.Tensor, async_op: bool) -> Any:
        found.append(tensor.numel())
        return SimpleNamespace(wait=lambda: None)

    def reduce_scatter(own: torch.Tensor, tensor: torch.Tensor, async_op: bool) -> Any:
        return all_reduce(tensor, async_op)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "reduce_scatter_single", reduce_scatter)
    return found


@pytest.mark.usefixtures("another_rank")
@pytest.mark.parametrize("accumulation_steps", [1, 4])
@pytest.mark.parametrize("divided", [False, True])
def test_only_the_last_micro_batch_of_a_step_sends_them(
    accumulation_steps: int, divided: bool, sent: list[int]
) -> None:
    unet = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 3))
    arguments = TrainArguments(shard_optimizer=divided)
    state = TrainingState(unet, arguments, WORLD)
    gradients = Gradients(state, WORLD, arguments, accumulation_steps)
    for number in range(gradients.warm_up_passes + 3):
        if number == gradients.warm_up_passes:
            gradients.settle()
        sent.clear()
        gradients.clear()
        for index in range(accumulation_steps):
            last = index == accumulation_steps - 1
            with gradients.accumulating(last):
                torch.autograd.backward(gradients.forward(torch.ones(4, 3)).sum())
            assert len(sent) == last
        gradients.note_end()
        parameters = sum(parameter.numel() for parameter in unet.parameters())
        assert sent == [parameters]
    assert gradients.take_waited_s() >= 0
    weight = next(unet.parameters())
    assert weight.grad is not None
    # Summed over the micro-batches, and not averaged over the ranks as DDP itself would.
    total = weight.grad.clone()
    once = torch.autograd.grad(unet(torch.ones(4, 3)).sum(), weight)[0]
    torch.testing.assert_close(total, accumulation_steps * once)


@pytest.mark.usefixtures("another_rank", "sent")
def test_pieces_of_buckets_that_do_not_stay_are_not_stepped() -> None:
    unet = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 300), torch.nn.Linear(300, 300))
    arguments = TrainArguments(shard_optimizer=True, gradient_bucket_mb=1)
    gradients = Gradients(TrainingState(unet, arguments, WORLD), WORLD, arguments)
    torch.autograd.backward(gradients.forward(torch.ones(4, 300)).sum())
    gradients.settle()
    torch.autograd.backward(gradients.forward(torch.ones(4, 300)).sum())
    with pytest.raises(RuntimeError, match="bucket 0 holds other gradients than in the first passes"):
        torch.autograd.backward(gradients.forward(torch.ones(4, 300)).sum())

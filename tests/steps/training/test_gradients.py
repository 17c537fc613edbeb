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

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return found


@pytest.mark.usefixtures("another_rank")
@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_only_the_last_micro_batch_of_a_step_sends_them(accumulation_steps: int, sent: list[int]) -> None:
    unet = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    state = TrainingState(unet, TrainArguments(), WORLD)
    gradients = Gradients(state, WORLD)
    for _ in range(3):
        sent.clear()
        gradients.clear()
        for index in range(accumulation_steps):
            gradients.sends = index == accumulation_steps - 1
            torch.autograd.backward(unet(torch.ones(4, 3)).sum())
            assert len(sent) == gradients.sends
        gradients.note_end()
        assert sent == [len(buffer.gradients) for buffer in state.buffers]
    assert gradients.take_waited_s() >= 0
    weight = next(unet.parameters())
    assert weight.grad is not None
    # Summed over the micro-batches, and not averaged over the ranks.
    total = weight.grad.clone()
    once = torch.autograd.grad(unet(torch.ones(4, 3)).sum(), weight)[0]
    torch.testing.assert_close(total, accumulation_steps * once)


@pytest.mark.usefixtures("another_rank")
def test_a_weight_without_a_gradient_holds_nothing_up(sent: list[int]) -> None:
    network = torch.nn.ModuleList([torch.nn.Linear(3, 5), torch.nn.Linear(3, 2)])
    state = TrainingState(network, TrainArguments(), WORLD)
    gradients = Gradients(state, WORLD)
    gradients.sends = True
    torch.autograd.backward(network[0](torch.ones(4, 3)).sum())
    assert not sent
    gradients.note_end()
    assert len(sent) == 1
    assert state.parameters[2].grad is not None and not state.parameters[2].grad.any()

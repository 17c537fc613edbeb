"""Gradients travel once for each optimizer step, while the backward pass goes on."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from steps.training.gradients import Gradients
from steps.training.ranks import World

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
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result([tensor])
        return SimpleNamespace(get_future=lambda: future)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return found


@pytest.mark.usefixtures("another_rank")
@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_only_the_last_micro_batch_of_a_step_sends_them(accumulation_steps: int, sent: list[int]) -> None:
    unet = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    gradients = Gradients(unet, WORLD, accumulation_steps)
    for _ in range(3):
        sent.clear()
        gradients.clear()
        for index in range(accumulation_steps):
            with gradients.accumulating(last=index == accumulation_steps - 1):
                torch.autograd.backward(gradients.forward(torch.ones(4, 3)).sum())
        gradients.sum.note_end()
        assert sum(sent) == sum(parameter.numel() for parameter in unet.parameters())
    assert gradients.sum.take_waited_s() >= 0
    weight = next(unet.parameters())
    assert weight.grad is not None
    # Summed over the micro-batches, and not averaged over the ranks as DDP itself would.
    once = torch.autograd.grad(unet(torch.ones(4, 3)).sum(), weight)[0]
    torch.testing.assert_close(weight.grad, accumulation_steps * once)

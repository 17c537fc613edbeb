"""What would spoil a training in silence is said, and in the end stops it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steps.errors import StepError
from steps.training.ranks import World
from steps.training.window import SkipGuard, SpikeGuard, check_replicas, weights_checksum

WORLD = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


@dataclasses.dataclass(frozen=True)
class WorldOf(World):
    others: tuple[int, ...] = ()

    def gather_int(self, value: int) -> list[int]:
        return [value, *self.others]


def test_skipped_steps_are_counted_with_their_samples(capsys: pytest.CaptureFixture[str]) -> None:
    guard = SkipGuard(limit=3, skipped_steps=1)
    guard.note([False, True, False, True], first_sample=100, batch_samples=8)
    assert guard.skipped_steps == 3
    said = capsys.readouterr().out.splitlines()
    assert [line.split("at ")[1] for line in said] == ["samples 108 to 116", "samples 124 to 132"]


def test_past_the_limit_the_job_fails() -> None:
    with pytest.raises(StepError, match=r"3 steps had a gradient that is not finite \(max_skipped_steps 2\)"):
        SkipGuard(limit=2).note([True, True, True], 0, 8)


def test_a_spike_is_said_with_its_samples_and_noise_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    guard = SpikeGuard()
    losses = np.random.default_rng(0).normal(0.5, 0.05, 400).tolist()
    guard.note(losses, 0, 8)
    assert capsys.readouterr().out == ""
    guard.note([0.5, 2.5, 0.5], 3200, 8)
    assert capsys.readouterr().out == "loss spike: 2.5 at samples 3208 to 3216\n"


@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 31))
def test_the_checksum_sees_every_bit(tensor: int, element: int, bit: int) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(5) for _ in range(3)]
    before = weights_checksum(tensors)
    flipped = tensors[tensor].view(torch.int32)
    flipped[element] ^= torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
    assert weights_checksum(tensors) != before


def test_the_checksum_sees_the_order() -> None:
    tensors = [torch.ones(2), torch.zeros(2)]
    assert weights_checksum(tensors) != weights_checksum(tensors[::-1])


def test_a_rank_that_strays_is_named() -> None:
    weights = [torch.ones(2)]
    same = weights_checksum(weights)
    check_replicas(WorldOf(0, 3, 0, torch.device("cpu"), others=(same, same)), weights, 64)
    with pytest.raises(StepError, match="after 64 samples the weights of rank 2 differ"):
        check_replicas(WorldOf(0, 3, 0, torch.device("cpu"), others=(same, same + 1)), weights, 64)
    check_replicas(WORLD, weights, 64)

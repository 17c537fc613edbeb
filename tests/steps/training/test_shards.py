"""Who keeps what of the optimizer: all of it is kept somewhere, and the shares are even."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.ranks import World
from steps.training.state import AVERAGE, OPTIMIZER, WEIGHTS, Shards, TrainingState, flat, owners
from tests.steps.training.tiny_model import tiny_unet

DIVIDED = TrainArguments(shard_optimizer=True, ema_precision="bfloat16")


def world(rank: int, size: int = 2) -> World:
    return World(rank=rank, size=size, local_rank=rank, device=torch.device("cpu"))


@given(st.lists(st.integers(1, 10_000), min_size=8, max_size=60), st.integers(1, 8))
def test_shares_differ_by_no_more_than_the_largest_parameter(sizes: list[int], ranks: int) -> None:
    found = owners(sizes, ranks)
    loads = [sum(size for size, owner in zip(sizes, found, strict=True) if owner == rank) for rank in range(ranks)]
    assert sum(loads) == sum(sizes)
    assert max(loads) - min(loads) <= max(sizes)


def test_each_tensor_is_kept_by_one_rank_and_known_to_the_other() -> None:
    unet = tiny_unet()
    states = [TrainingState(unet, DIVIDED, world(rank)).tensors() for rank in range(2)]
    whole = TrainingState(unet, DIVIDED, world(0, size=1)).tensors()
    for group, tensors in whole.items():
        for name, tensor in tensors.items():
            of_ranks = [state[group][name] for state in states]
            assert all((t.shape, t.dtype) == (tensor.shape, tensor.dtype) for t in of_ranks), (group, name)
            assert sum(not t.is_meta for t in of_ranks) == (2 if group == WEIGHTS else 1), (group, name)
    kept = [sum(t.numel() for t in state[OPTIMIZER].values() if not t.is_meta) for state in states]
    assert max(kept) < 0.6 * sum(t.numel() for t in whole[OPTIMIZER].values())
    assert all(tensor.dtype == torch.bfloat16 for tensor in states[0][AVERAGE].values())


def test_a_weight_that_lies_channels_last_is_sent_as_it_lies() -> None:
    for shape in ((6, 4, 3, 3), (6, 4, 1, 1), (1, 4, 3, 3)):
        weight = torch.randn(shape).to(memory_format=torch.channels_last)
        view = flat(weight)
        assert view.is_contiguous()
        view.zero_()
        assert not weight.any()
    assert not torch.empty(6, 4, 3, 3).to(memory_format=torch.channels_last).is_contiguous()
    assert all(flat(torch.empty(shape)).is_contiguous() for shape in ((), (5,), (6, 4)))


def test_more_ranks_than_parameters_are_refused() -> None:
    with pytest.raises(StepError, match="shard_optimizer: 2 parameters do not do for 3 ranks"):
        Shards([torch.ones(2), torch.ones(3)], world(0, size=3), divided=True)


def test_one_rank_has_everything() -> None:
    shards = Shards([torch.ones(2)], world(0, size=1), divided=True)
    assert not shards.divided
    assert shards.own == [0]

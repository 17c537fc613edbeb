"""Flat buffers and what each rank keeps: even pieces, the same bits, and checkpoints for any number of ranks."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from params.programs import TrainArguments
from steps.training.flat_buffers import ALIGNMENT, flat_buffers
from steps.training.gradients import Gradients
from steps.training.ranks import World
from steps.training.state import AVERAGE, OPTIMIZER, TrainingState
from tests.steps.training.jobs import free_port
from tests.steps.training.processes import PRELOADED
from tests.steps.training.tiny_model import diffusers, tiny_unet

Snapshot = dict[str, dict[str, torch.Tensor]]


def world(rank: int, size: int = 2) -> World:
    return World(rank=rank, size=size, local_rank=rank, device=torch.device("cpu"))


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=12),
    st.integers(1, 9),
    st.integers(0, 2000),
)
def test_the_ranks_parts_are_the_parameters_however_they_lie(
    shapes: list[list[int]], ranks: int, most_bytes: int
) -> None:
    kept: dict[int, list[torch.Tensor]] = {}
    for rank in range(ranks):
        torch.manual_seed(0)
        before = [torch.randn(shape) for shape in shapes]
        parameters = [_channels_last(tensor.clone()) for tensor in before]
        matrices = [tensor.ndim == 2 for tensor in before]
        buffers = flat_buffers(parameters, matrices, world(rank, ranks), most_bytes)
        for tensor, parameter in zip(before, parameters, strict=True):
            assert torch.equal(parameter, tensor) and parameter.stride() == _channels_last(tensor).stride()
            assert parameter.grad is not None and parameter.grad.stride() == parameter.stride()
        for part in (part for buffer in buffers for part in buffer.parts()):
            assert torch.equal(part.of(parameters[part.place]), part.tensor)
            assert part.stretch is not None and part.stretch.start % ALIGNMENT == 0
            assert part.tensor.grad is not None
            kept.setdefault(part.place, []).append(part.tensor)
    for place, parts in kept.items():
        # Stable from rank to rank: together they are the parameter, in the order of its memory.
        in_memory = before[place].permute(_order(parameters[place])).reshape(-1)
        assert torch.equal(torch.cat(parts), in_memory)
    assert len(kept) == sum(tensor.numel() > 0 for tensor in before)


def _order(tensor: torch.Tensor) -> list[int]:
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@pytest.mark.parametrize("bucket_mb", [25, 400])
@pytest.mark.parametrize("ranks", [8, 512, 1024])
def test_pieces_of_stable_diffusion_2_are_even(ranks: int, bucket_mb: int) -> None:
    sizes: dict[str, Any] = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, use_linear_projection=True, **sizes)
    parameters = [parameter.detach() for parameter in unet.parameters()]
    mean = sum(parameter.numel() for parameter in parameters) / ranks
    buffers = flat_buffers(parameters, [False] * len(parameters), world(0, ranks), bucket_mb << 20)
    assert sum(len(part.tensor) for buffer in buffers for part in buffer.parts()) <= 1.01 * mean
    assert sum(buffer.piece_size for buffer in buffers) <= 1.01 * mean


def _train(rank: int, ranks: int, port: int, file: str, settings: dict[str, Any]) -> None:
    """Take a few steps on random samples, begin again at what a checkpoint would hold, and save what is then there."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", rank=rank, world_size=ranks)
    arguments, here = TrainArguments(**settings), world(rank, ranks)
    torch.manual_seed(0)
    kind = torch.float64 if arguments.precision == "float64" else torch.float32
    unet = tiny_unet().to(kind, memory_format=torch.channels_last)
    state = TrainingState(unet, arguments, here)
    gradients = Gradients(state, here, arguments)
    for step in range(3):
        torch.manual_seed(100 * step + rank)
        latents, captions = torch.randn(2, 4, 4, 4, dtype=kind), torch.randn(2, 6, 8, dtype=kind)
        with gradients.accumulating(last=True):
            drawn = gradients.forward(latents, torch.tensor([3, 500]), captions).sample
            torch.autograd.backward(drawn.square().sum())
        gradients.note_end()
        norm = state.gradient_norm()
        torch.nn.utils.clip_grads_with_norm_(state.optimizer.trained, 1.0, norm)
        state.optimizer.step(1e-2, torch.zeros(()))
        state.share()
        gradients.clear()
        if state.average is not None:
            state.average.update(16 * step, 16)
    checkpoint = state.snapshot()
    with state.averaged():
        pass
    for average in state.average.tensors if state.average else ():
        average.zero_()
    state.restore(checkpoint)
    saved = state.snapshot()
    if rank == 0:
        torch.save((norm, saved), file)


def _trained(folder: Path, ranks: int, **settings: Any) -> tuple[torch.Tensor, Snapshot]:
    context, port, file = multiprocessing.get_context("forkserver"), free_port(), str(folder / "state.pt")
    context.set_forkserver_preload([*PRELOADED, __name__])
    processes = [context.Process(target=_train, args=(rank, ranks, port, file, settings)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * ranks
    found: tuple[torch.Tensor, Snapshot] = torch.load(file)
    return found


def same(one: Snapshot, other: Snapshot) -> bool:
    names = {(group, name) for group, tensors in one.items() for name in tensors}
    assert names == {(group, name) for group, tensors in other.items() for name in tensors}
    return all(torch.equal(one[group][name], other[group][name]) for group, name in names)


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_bucket_mb": 1}, {"optimizer": "muon"}, {"gradient_compression": "bfloat16"}]
)
def test_at_two_ranks_the_bits_do_not_depend_on_who_keeps_the_optimizer(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings |= {"ema_precision": "bfloat16"}
    (norm, whole), (divided_norm, divided) = (
        _trained(tmp_path, 2, shard_optimizer=divided, **settings) for divided in (False, True)
    )
    assert torch.equal(norm, divided_norm)
    assert same(whole, divided)
    assert all(float(step) == 3 for name, step in divided[OPTIMIZER].items() if name.startswith("step."))
    # As one rank writes it, and reads it.
    alone = TrainingState(tiny_unet(), TrainArguments(**settings), world(0, 1))
    expected = alone.expected()
    shapes = [{(g, n, t.shape, t.dtype) for g, ts in of.items() for n, t in ts.items()} for of in (expected, divided)]
    assert shapes[0] == shapes[1]
    alone.restore(divided)
    assert same(alone.snapshot(), divided)


def test_at_eight_ranks_it_is_the_same_but_for_the_order_of_sums(tmp_path: Path) -> None:
    """In which order eight numbers are added up depends on where they lie in what is sent."""
    whole, divided = (
        _trained(tmp_path, 8, shard_optimizer=divided, optimizer="muon", precision="float64")[1]
        for divided in (False, True)
    )
    assert {group: set(tensors) for group, tensors in whole.items()} == {g: set(ts) for g, ts in divided.items()}
    for group, tensors in whole.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(divided[group][name], tensor, rtol=1e-12, atol=1e-12)


def test_at_eight_ranks_the_bits_do_not_depend_on_what_is_divided(tmp_path: Path) -> None:
    moments, both = (_trained(tmp_path, 8, shard_optimizer=True, ema_decay=decay)[1] for decay in (0.0, 0.9999))
    assert same(moments, {group: tensors for group, tensors in both.items() if group in moments})
    assert AVERAGE in both and AVERAGE not in moments


def test_compressed_gradients_are_other_bits(tmp_path: Path) -> None:
    plain, compressed = (
        _trained(tmp_path, 2, gradient_compression=kind)[1]["weights"] for kind in ("none", "bfloat16")
    )
    assert not all(torch.equal(compressed[name], weight) for name, weight in plain.items())
    assert all(torch.allclose(compressed[name], weight, atol=0.05) for name, weight in plain.items())


def test_one_rank_has_no_buffers() -> None:
    state = TrainingState(tiny_unet(), TrainArguments(shard_optimizer=True), world(0, 1))
    assert not state.buffers

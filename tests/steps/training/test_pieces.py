"""What each rank keeps of the state: even pieces, the same bits, and checkpoints for any number of ranks."""

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
from steps.training.gradients import Gradients
from steps.training.inputs import Inputs
from steps.training.objective import Objective
from steps.training.optimizer_step import OptimizerStep, batch_plan
from steps.training.pieces import ALIGNMENT, pieces_of
from steps.training.ranks import World
from steps.training.state import AVERAGE, OPTIMIZER, TrainingState
from tests.steps.training.jobs import free_port
from tests.steps.training.processes import PRELOADED
from tests.steps.training.tiny_model import diffusers, tiny_unet

Snapshot = dict[str, dict[str, torch.Tensor]]


def world(rank: int, size: int = 2) -> World:
    return World(rank=rank, size=size, local_rank=rank, device=torch.device("cpu"))


@given(st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=12), st.integers(1, 9), st.data())
def test_the_ranks_parts_are_the_parameters_however_they_lie(
    shapes: list[list[int]], ranks: int, data: st.DataObject
) -> None:
    places = data.draw(st.permutations(range(len(shapes))))
    cut = data.draw(st.integers(0, len(shapes)))
    buckets = [bucket for bucket in (places[:cut], places[cut:]) if bucket]
    kept: dict[int, list[torch.Tensor]] = {}
    for rank in range(ranks):
        torch.manual_seed(0)
        before = [torch.randn(shape) for shape in shapes]
        parameters = [_channels_last(tensor.clone()) for tensor in before]
        for parameter in parameters:
            parameter.grad = 2 * parameter
        matrices = {place for place, tensor in enumerate(before) if tensor.ndim == 2}
        found = pieces_of(parameters, buckets, matrices, world(rank, ranks))
        for part in (part for pieces in found for part in pieces.parts):
            assert part.tensor.data_ptr() == part.inside(part.stepped).data_ptr()
            assert torch.equal(part.of(parameters[part.place]), part.tensor)
            assert part.stepped.storage_offset() % ALIGNMENT == 0
            assert len(part.stepped) % ALIGNMENT == 0 or part.stepped.data_ptr() + part.stepped.nbytes == _end(
                parameters[part.place]
            )
            assert part.tensor.grad is not None and torch.equal(part.tensor.grad, 2 * part.tensor)
            kept.setdefault(part.place, []).append(part.tensor)
    for place, parts in kept.items():
        # Stable from rank to rank: together they are the parameter, in the order of its memory.
        in_memory = before[place].permute(_order(parameters[place])).reshape(-1)
        assert torch.equal(torch.cat(parts), in_memory)
    assert len(kept) == len(shapes)


def _order(tensor: torch.Tensor) -> list[int]:
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def _end(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() + tensor.nbytes


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@pytest.mark.parametrize("bucket_mb", [25, 400])
@pytest.mark.parametrize("ranks", [8, 512, 1024])
def test_pieces_of_stable_diffusion_2_are_even(ranks: int, bucket_mb: int) -> None:
    sizes: dict[str, Any] = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, use_linear_projection=True, **sizes)
    parameters = [parameter.detach() for parameter in unet.parameters()]
    first: Any = torch.nn.parallel.distributed
    limits = [first.dist._DEFAULT_FIRST_BUCKET_BYTES, bucket_mb << 20]
    places, _ = first.dist._compute_bucket_assignment_by_size(parameters[::-1], limits)
    mean = sum(parameter.numel() for parameter in parameters) / ranks
    pieces = pieces_of(parameters[::-1], places, set(), world(0, ranks))
    assert sum(len(part.tensor) for one in pieces for part in one.parts) <= 1.001 * mean
    assert sum(one.size for one in pieces) <= 1.001 * mean


class Squares(Objective):
    """The square of what the network makes of random samples."""

    def __init__(self) -> None:
        pass

    def weighted_losses(self, network: Any, inputs: Inputs) -> torch.Tensor:
        drawn: torch.Tensor = network(inputs.mean, inputs.timesteps, inputs.captions).sample
        return drawn.square().flatten(1).sum(1)


def _inputs(seed: int, count: int, kind: torch.dtype) -> Inputs:
    torch.manual_seed(seed)
    latents, captions, unused = torch.randn(count, 4, 4, 4), torch.randn(count, 6, 8), torch.zeros(count)
    timesteps = torch.randint(0, 1000, (count,))
    return Inputs(latents.to(kind), unused, unused, unused, timesteps, captions.to(kind), unused)


def _unet(wide: bool) -> Any:
    """Return a network; a wide one's gradients do not fit into a bucket of 1 MiB."""
    config = dict(tiny_unet().config)
    return diffusers.UNet2DConditionModel.from_config(config | {"block_out_channels": (64,)} if wide else config)


def _train(rank: int, ranks: int, port: int, file: str, settings: dict[str, Any]) -> None:
    """Take a few steps on random samples, begin again at what a checkpoint would hold, and save what is then there."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", rank=rank, world_size=ranks)
    settings = {"global_batch_size": 2 * ranks, "micro_batch_size": 2, "warmup_samples": 0} | settings
    arguments, here = TrainArguments(learning_rate=1e-2, **settings), world(rank, ranks)
    plan = batch_plan(arguments.global_batch_size, arguments.micro_batch_size, ranks)
    torch.manual_seed(0)
    kind = torch.float64 if arguments.precision == "float64" else torch.float32
    unet = _unet(arguments.gradient_bucket_mb == 1).to(kind, memory_format=torch.channels_last)
    state = TrainingState(unet, arguments, here)
    gradients = Gradients(state, here, arguments, plan.accumulation_steps)
    step = OptimizerStep(arguments, plan, state, gradients, Squares())
    for _ in range(gradients.warm_up_passes):
        step.add_gradients(_inputs(rank, 2, kind))
    gradients.settle()
    if state.divided and "gradient_bucket_mb" in settings:
        assert len(state.pieces) > 1
    for number in range(4):
        taken = step.take(_inputs(100 * number + rank, 2, kind), number * plan.global_batch_size)
        assert taken.gradient_norm > arguments.max_gradient_norm and not taken.skipped
    checkpoint = state.snapshot()
    with state.averaged():
        pass
    for average in state.average.tensors if state.average else ():
        average.zero_()
    state.restore(checkpoint)
    saved = state.snapshot()
    if rank == 0:
        torch.save((taken.gradient_norm, saved), file)


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


SEVERAL_BUCKETS: dict[str, Any] = {"micro_batch_size": 1, "gradient_bucket_mb": 1}
COMPRESSED_MUON = {"optimizer": "muon", "gradient_compression": "bfloat16"}


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("settings", [{}, SEVERAL_BUCKETS, COMPRESSED_MUON])
def test_who_keeps_the_optimizer_changes_no_bit(tmp_path: Path, ranks: int, settings: dict[str, Any]) -> None:
    settings = {"ema_precision": "bfloat16", "ema_reference_samples": 8} | settings
    (norm, whole), (divided_norm, divided) = (
        _trained(tmp_path, ranks, shard_optimizer=divided, **settings) for divided in (False, True)
    )
    assert torch.equal(norm, divided_norm)
    assert same(whole, divided)
    assert all(float(step) == 4 for name, step in divided[OPTIMIZER].items() if name.startswith("step."))
    # As one rank writes it, and reads it.
    alone = TrainingState(_unet("gradient_bucket_mb" in settings), TrainArguments(**settings), world(0, 1))
    expected = alone.expected()
    shapes = [{(g, n, t.shape, t.dtype) for g, ts in of.items() for n, t in ts.items()} for of in (expected, divided)]
    assert shapes[0] == shapes[1]
    alone.restore(divided)
    assert same(alone.snapshot(), divided)


def test_the_bits_do_not_depend_on_what_is_divided(tmp_path: Path) -> None:
    moments, both = (_trained(tmp_path, 2, shard_optimizer=True, ema_decay=decay)[1] for decay in (0.0, 0.9999))
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
    state.divide([list(range(len(state.parameters)))])
    assert not state.pieces and len(state.optimizer.trained) == len(state.parameters)

"""This project's training: the real loader, inputs and optimizer step, and a log window that is read every 50 steps.

`python -m benchmarks.train --parts` measures what each part of it gains: the same training with one thing changed, in
turns with it. A ratio below 1 means that the part pays off. `--memory` measures peak memory, in a process of its own,
beside its estimate by fake tensors: on a GPU torch's max_memory_allocated, on a CPU the growth of the peak resident set
over what was in memory before the model was built; one rank, not compiled, with and without gradient checkpointing.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)

from benchmarks.harness import in_new_processes
from benchmarks.train.contest import Contender, Step, Task, contest, memory_ratio, ratio
from params.programs import TrainArguments
from steps.data.loading.latents import LatentsDataset
from steps.model.families import denoiser_of
from steps.model.pretrained import empty_text_encoders
from steps.training import assembly
from steps.training.assembly import assemble, loader_from, warm_up
from steps.training.objective import FORWARD_DTYPES
from steps.training.optimizer_step import batch_plan
from steps.training.peak_memory import FakeNetwork, parameter_count, training_peak_bytes
from steps.training.ranks import World
from steps.training.utilisation import peak_bytes, resident_bytes, start_over
from steps.training.window import Window

# Far more than anyone measures.
ENDLESS_STEPS = 1_000_000
STEPS: Final = 2
# What is freed goes back to the system at once: otherwise the peak is of what malloc keeps.
MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def arguments_of(task: Task) -> TrainArguments:
    """Return the recipe of the script with this program's defaults."""
    return TrainArguments(
        training_samples=ENDLESS_STEPS * task.batch_size,
        global_batch_size=task.batch_size,
        micro_batch_size=task.batch_size,
        warmup_samples=0,
        prediction_type=denoiser_of(task.pretrained).predictions[0],
        precision="bfloat16" if task.precision == "bfloat16" else "float32",
        compile=task.compile,
        cuda_graphs=task.cuda_graphs,
    )


@contextmanager
def ours(task: Task, changes: Mapping[str, Any] | None = None) -> Iterator[Step]:
    """Yield a step of the only rank, with some settings changed."""
    world = World(rank=0, size=1, local_rank=0, device=task.device)
    arguments = arguments_of(task).model_copy(update=dict(changes or {}))
    plan = batch_plan(arguments.global_batch_size, arguments.micro_batch_size, world.size)
    parts = assemble(arguments, plan, world, task.latents, task.pretrained, task.pretrained)
    warm_up(parts, plan)
    batches = iter(loader_from(parts, arguments, plan, world, 0))
    window, seen_samples = Window(0), 0

    def step() -> None:
        nonlocal window, seen_samples
        batch = next(batches)
        window.add(parts.optimizer_step.take(parts.inputs.training(batch, batch.positions), seen_samples))
        seen_samples += plan.global_batch_size
        if len(window) == arguments.log_every_steps:
            window.close(world)
            window = Window(seen_samples)

    try:
        yield step
    finally:
        batches.close()  # type: ignore[attr-defined]


def changed(change: Callable[[Any], object] = lambda network: None, **settings: Any) -> Contender:
    """Return ours with some settings changed, and the network changed before the optimizer sees it."""

    @contextmanager
    def run(task: Task) -> Iterator[Step]:
        build = assembly.build_network

        def build_changed(*arguments: Any) -> Any:
            network = build(*arguments)
            change(network)
            return network

        with mock.patch.object(assembly, "build_network", build_changed), ours(task, changes=settings) as step:
            yield step

    return run


def variants(task: Task) -> dict[str, Contender]:
    on_gpu = task.device.type == "cuda"
    layout = torch.contiguous_format if on_gpu else torch.channels_last
    contenders = {
        "not compiled" if task.compile else "compiled": changed(compile=not task.compile, cuda_graphs=False),
        "channels first" if on_gpu else "channels last": changed(lambda network: network.to(memory_format=layout)),
        "plain attention": changed(lambda network: _set_attention(network, "AttnProcessor")),
        "loss read in every step": changed(log_every_steps=1),
        "average in bfloat16": changed(ema_precision="bfloat16"),
        "no average": changed(ema_decay=0.0),
        "gradient checkpointing": changed(gradient_checkpointing=True),
    }
    if task.precision == "bfloat16":
        contenders["float32"] = changed(precision="float32")
        if not on_gpu:
            contenders["fused attention"] = changed(lambda network: _set_attention(network, "AttnProcessor2_0"))
    if on_gpu:
        contenders["CUDA graphs"] = changed(compile=True, cuda_graphs=True)
        if task.precision == "bfloat16":
            contenders["GroupNorm in bfloat16"] = changed(_normalise_as_given)
    return contenders


def what_each_buys(task: Task, rounds: int, turn_s: float) -> dict[str, dict[str, float | None]]:
    """Return for each variant its images/s and its peak memory, each divided by ours."""
    figures = contest({"ours": ours, **variants(task)}, task, rounds, turn_s)
    own = figures.pop("ours")
    return {
        name: {"images_per_s": ratio(changed_one, own), "peak_memory": memory_ratio(changed_one, own)}
        for name, changed_one in figures.items()
    }


def _set_attention(network: Any, name: str) -> None:
    network.set_attn_processor(getattr(importlib.import_module("diffusers.models.attention_processor"), name)())


def _normalise_as_given(network: Any) -> None:
    """Have GroupNorm compute in its input's precision, where autocast on a GPU takes float32."""

    def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, module.num_groups, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps)

    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = partial(norm, module)


def memory(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [row for task in tasks for row in _rows(replace(task, compile=False, cuda_graphs=False))]


def _rows(task: Task) -> Iterator[dict[str, Any]]:
    for checkpointing in (False, True):
        changes = {"gradient_checkpointing": checkpointing}
        [measured] = in_new_processes(_measure, [(task, changes)], **MALLOC)
        estimated = estimated_bytes(task, changes)
        yield {
            "resolution_px": task.resolution_px,
            "batch_size": task.batch_size,
            **changes,
            "measured_gb": measured / 1e9,
            "estimated_gb": estimated / 1e9,
            "ratio": measured / estimated,
        }


def estimated_bytes(task: Task, changes: dict[str, Any]) -> float:
    """Return the estimate of ours: one rank without accumulation makes its gradients anew in every step."""
    arguments = arguments_of(task).model_copy(update=changes)
    manifest = LatentsDataset(task.latents).manifest
    denoiser = denoiser_of(task.pretrained)
    text = sum(map(parameter_count, empty_text_encoders(task.pretrained, denoiser.family).values()))
    positions = denoiser.reader(task.pretrained, manifest.caption_length, None).positions
    network = FakeNetwork(
        denoiser,
        denoiser.config(task.pretrained),
        arguments.precision,
        arguments.gradient_checkpointing,
        on_gpu=task.device.type == "cuda",
        keeps_gradients=False,
    )
    peak = training_peak_bytes(network, arguments, manifest.latent_shape, positions)
    return peak + text * FORWARD_DTYPES[arguments.precision].itemsize


def _measure(task: Task, changes: dict[str, Any]) -> int:
    """Return the peak of a few steps, after a training of single samples that loads the libraries' own memory."""
    torch.set_num_threads(1)
    with ours(replace(task, batch_size=1), changes=changes) as step:
        step()
    del step
    start_over(task.device)
    before = 0 if task.device.type == "cuda" else resident_bytes()
    with ours(task, changes=changes) as step:
        step()
        start_over(task.device)
        for _ in range(STEPS):
            step()
        return peak_bytes(task.device) - before

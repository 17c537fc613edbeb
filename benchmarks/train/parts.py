"""What each part of ours buys: the same training with one thing changed, in turns with ours.

`python -m benchmarks.train --parts` runs it. A ratio below 1 means that what ours has pays.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from benchmarks.train.contest import contest, memory_ratio, ratio
from benchmarks.train.ours import ours
from benchmarks.train.task import Contender, Step, Task
from steps.training import assembly


@dataclass(frozen=True)
class ChangedTraining:
    """Ours with one thing changed."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    of_unet: Callable[[Any], object] = lambda unet: None
    """Done to the UNet before the optimizer sees it."""

    def contender(self) -> Contender:
        """Return it as one that takes part."""

        @contextmanager
        def run(task: Task) -> Iterator[Step]:
            build = assembly.build_unet

            def changed(*arguments: Any) -> Any:
                unet = build(*arguments)
                self.of_unet(unet)
                return unet

            with mock.patch.object(assembly, "build_unet", changed), ours(task, changes=self.settings) as step:
                yield step

        return run


def variants(task: Task) -> dict[str, ChangedTraining]:
    """Return what is changed, by a name that says how it then is."""
    on_gpu = task.device.type == "cuda"
    layout = torch.contiguous_format if on_gpu else torch.channels_last
    fused = on_gpu or task.precision != "bfloat16"
    found = {
        "not compiled" if task.compile else "compiled": ChangedTraining(
            {"compile": not task.compile, "cuda_graphs": False}
        ),
        "channels first" if on_gpu else "channels last": ChangedTraining(
            of_unet=lambda unet: unet.to(memory_format=layout)
        ),
        "plain attention": ChangedTraining(of_unet=lambda unet: _set_attention(unet, "AttnProcessor")),
        "loss read in every step": ChangedTraining({"log_every_steps": 1}),
        "average in bfloat16": ChangedTraining({"ema_precision": "bfloat16"}),
        "no average": ChangedTraining({"ema_decay": 0.0}),
        "gradient checkpointing": ChangedTraining({"gradient_checkpointing": True}),
    }
    if not fused:
        found["fused attention"] = ChangedTraining(of_unet=lambda unet: _set_attention(unet, "AttnProcessor2_0"))
    if task.precision == "bfloat16":
        found["float32"] = ChangedTraining({"precision": "float32"})
    if on_gpu:
        found["CUDA graphs"] = ChangedTraining({"compile": True, "cuda_graphs": True})
    return found


def what_each_buys(task: Task, rounds: int, turn_s: float) -> dict[str, dict[str, float | None]]:
    """Return for each variant its images/s and its peak memory, both times ours."""
    contenders = {"ours": ours} | {name: variant.contender() for name, variant in variants(task).items()}
    figures = contest(contenders, task, rounds, turn_s)
    own = figures.pop("ours")
    return {
        name: {"images_per_s": ratio(of_one, own), "peak_memory": memory_ratio(of_one, own)}
        for name, of_one in figures.items()
    }


def _set_attention(unet: Any, name: str) -> None:
    unet.set_attn_processor(getattr(importlib.import_module("diffusers.models.attention_processor"), name)())

"""What each part of ours gains: the same training with one thing changed, in turns with ours.

`python -m benchmarks.train --parts` runs it. A ratio below 1 means that the part pays off.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from benchmarks.train.contest import Contender, Step, Task, contest, memory_ratio, ratio
from benchmarks.train.ours import ours
from steps.training import assembly


def changed(change_unet: Callable[[Any], object] = lambda unet: None, **settings: Any) -> Contender:
    """Return ours with some settings changed, and the UNet changed before the optimizer sees it."""

    @contextmanager
    def run(task: Task) -> Iterator[Step]:
        build = assembly.build_unet

        def build_changed(*arguments: Any) -> Any:
            unet = build(*arguments)
            change_unet(unet)
            return unet

        with mock.patch.object(assembly, "build_unet", build_changed), ours(task, changes=settings) as step:
            yield step

    return run


def variants(task: Task) -> dict[str, Contender]:
    on_gpu = task.device.type == "cuda"
    layout = torch.contiguous_format if on_gpu else torch.channels_last
    contenders = {
        "not compiled" if task.compile else "compiled": changed(compile=not task.compile, cuda_graphs=False),
        "channels first" if on_gpu else "channels last": changed(lambda unet: unet.to(memory_format=layout)),
        "plain attention": changed(lambda unet: _set_attention(unet, "AttnProcessor")),
        "loss read in every step": changed(log_every_steps=1),
        "average in bfloat16": changed(ema_precision="bfloat16"),
        "no average": changed(ema_decay=0.0),
        "gradient checkpointing": changed(gradient_checkpointing=True),
    }
    if task.precision == "bfloat16":
        contenders["float32"] = changed(precision="float32")
        if not on_gpu:
            contenders["fused attention"] = changed(lambda unet: _set_attention(unet, "AttnProcessor2_0"))
    if on_gpu:
        contenders["CUDA graphs"] = changed(compile=True, cuda_graphs=True)
    return contenders


def what_each_buys(task: Task, rounds: int, turn_s: float) -> dict[str, dict[str, float | None]]:
    """Return for each variant its images/s and its peak memory, each divided by ours."""
    figures = contest({"ours": ours, **variants(task)}, task, rounds, turn_s)
    own = figures.pop("ours")
    return {
        name: {"images_per_s": ratio(changed_one, own), "peak_memory": memory_ratio(changed_one, own)}
        for name, changed_one in figures.items()
    }


def _set_attention(unet: Any, name: str) -> None:
    unet.set_attn_processor(getattr(importlib.import_module("diffusers.models.attention_processor"), name)())

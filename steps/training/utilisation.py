"""Utilisation of a device: MFU and memory, for every line of the training log.

Model FLOP utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B) is images/s on one device x FLOPs of a
sample / the device's ceiling. FLOPs count only the network's forward and backward pass: neither recomputation by
gradient checkpointing nor the frozen text encoders. The ceiling is measured, not read from a data sheet: the fastest
of a few large matrix products in the precision of the forward pass.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from params.layout import TRAIN_SPLIT
from params.programs import TrainArguments
from steps.data.latents.latents_manifest import LatentsManifest
from steps.model.denoiser import Denoiser, Shape
from steps.training.block_aids import BlockAids
from steps.training.lora import add_lora
from steps.training.objective import FORWARD_DTYPES

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
# Large enough that a product is bound by arithmetic: 0.8 ms a product on an H100, 20 ms on a core.
MATMUL_SIZES: Final = {"cuda": 8192, "cpu": 1024}
MATMUL_ROUNDS: Final = 5
MATMUL_REPEATS: Final = {"cuda": 10, "cpu": 1}


@dataclass(frozen=True)
class Utilisation:
    """FLOPs of a sample, and the ceiling of this rank's device."""

    device: torch.device
    flops_of_sample: int
    """Forward and backward pass of the network; with buckets, on average over the training samples."""
    ceiling_flops_per_s: float
    """Of large matrix products, measured here."""

    def figures(self, images_per_s_per_gpu: float) -> dict[str, float]:
        """Return mfu, tflops_per_s_per_gpu and, if the system reports it, peak_memory_gb at a speed."""
        flops_per_s = images_per_s_per_gpu * self.flops_of_sample
        figures = {"mfu": flops_per_s / self.ceiling_flops_per_s, "tflops_per_s_per_gpu": flops_per_s / 1e12}
        peak = peak_bytes(self.device)
        return figures | ({"peak_memory_gb": peak / 1e9} if peak else {})


def training_flops(
    denoiser: Denoiser, config: Mapping[str, Any], manifest: LatentsManifest, positions: int, arguments: TrainArguments
) -> int:
    """Return FLOPs of a sample's forward and backward pass under these settings, the mean over the buckets."""

    def trained(shape: Shape, network: Any) -> None:
        add_lora(network, arguments, arguments.lora_targets)
        if arguments.routing_fraction:
            BlockAids(denoiser, arguments, config, manifest).rehearse(shape, network)

    shapes = manifest.latent_shapes
    flops = [denoiser.flops_of_sample(config, shape, positions, partial(trained, shape)) for shape in shapes]
    counts = [bucket.counts[TRAIN_SPLIT] for bucket in manifest.buckets] or [1]
    return sum(cost * count for cost, count in zip(flops, counts, strict=True)) // sum(counts)


def start_over(device: torch.device) -> None:
    """Free unreferenced memory, including compiled graphs, and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()
    reset_peak(device)


def reset_peak(device: torch.device) -> None:
    """Reset the peak to the memory in use now; without effect where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_REFS.exists():
        # proc(5): 5 resets the peak resident set size.
        _CLEAR_REFS.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory since the last reset, of the GPU or the process; 0 if unknown."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Return the memory of this process now; 0 if unknown."""
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int:
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def matmul_flops_per_s(device: torch.device, precision: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the ceiling of this process: FLOP per second of large matrix products."""
    size, repeats = MATMUL_SIZES[device.type], MATMUL_REPEATS[device.type]
    left, right = (torch.randn(size, size, device=device).to(FORWARD_DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(left)
    best_s = float("inf")
    for _ in range(MATMUL_ROUNDS):
        wait_for(device)
        start_s = clock()
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        wait_for(device)
        best_s = min(best_s, (clock() - start_s) / repeats)
    return 2 * size**3 / best_s


def wait_for(device: torch.device) -> None:
    """Return once a device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

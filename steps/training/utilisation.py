"""How well a device is used: MFU and memory, for every line of the training log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from params.layout import TRAIN_SPLIT
from steps.data.latents_manifest import LatentsManifest
from steps.training.flops import flops_of_sample, matmul_flops_per_s

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Utilisation:
    """What a sample costs, and what this rank's device can do."""

    device: torch.device
    flops_of_sample: int
    """Forward and backward pass of the UNet; with buckets, on average over the training samples."""
    ceiling_flops_per_s: float
    """Of large matrix products, measured here."""

    def figures(self, images_per_s_per_gpu: float) -> dict[str, float]:
        """Return mfu, tflops_per_s_per_gpu and peak_memory_gb (where the system says it) at a speed."""
        flops_per_s = images_per_s_per_gpu * self.flops_of_sample
        figures = {"mfu": flops_per_s / self.ceiling_flops_per_s, "tflops_per_s_per_gpu": flops_per_s / 1e12}
        peak = peak_bytes(self.device)
        return figures | ({"peak_memory_gb": peak / 1e9} if peak else {})


def measure_utilisation(unet: Any, manifest: LatentsManifest, precision: str, device: torch.device) -> Utilisation:
    """Return the utilisation of a UNet on a device; takes some seconds."""
    width = int(unet.config.cross_attention_dim)
    shapes = manifest.latent_shapes
    flops = [flops_of_sample(unet.config, shape, manifest.caption_length, width) for shape in shapes]
    counts = [bucket.counts[TRAIN_SPLIT] for bucket in manifest.buckets] or [1]
    mean = sum(cost * count for cost, count in zip(flops, counts, strict=True)) // sum(counts)
    return Utilisation(device, mean, matmul_flops_per_s(device, precision))


def reset_peak(device: torch.device) -> None:
    """Let the peak begin again at what is in use now; without effect where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_REFS.exists():
        # proc(5): 5 resets the peak resident set size.
        _CLEAR_REFS.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Return the most memory in use since the last reset: of the GPU, or of the process; 0 where it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)

"""How many floating-point operations a sample costs, and how many a device can do: what MFU is made of.

Model FLOP utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B) is images/s on one device x FLOPs of a
sample / the device's ceiling. FLOPs are those of the UNet's forward and backward pass alone: neither what gradient
checkpointing computes again nor the frozen text encoder counts. The ceiling is measured, not read from a data sheet:
the fastest of a few large matrix products in the precision of the forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from steps.model.pretrained import empty_unet
from steps.training.objective import FORWARD_DTYPES

# Large enough that a product is bound by arithmetic: 0.8 ms a product on an H100, 20 ms on a core.
MATMUL_SIZES: Final = {"cuda": 8192, "cpu": 1024}
MATMUL_ROUNDS: Final = 5
MATMUL_REPEATS: Final = {"cuda": 10, "cpu": 1}


def flops_of_sample(
    unet_config: Mapping[str, Any], latent_shape: tuple[int, int, int], caption_length: int, embedding_width: int
) -> int:
    """Return FLOPs of one sample's forward and backward pass; one multiply-add is two.

    Exact, by torch's counter over every matrix product and convolution, on a UNet without memory (the meta device):
    539.3 GFLOP for Stable Diffusion 2 at 256 px, 2,409 GFLOP at 512 px.
    """
    unet = empty_unet(unet_config)
    latents = torch.empty((1, *latent_shape), device="meta")
    timesteps = torch.zeros(1, dtype=torch.int64, device="meta")
    captions = torch.empty((1, caption_length, embedding_width), device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        output: Any = unet(latents, timesteps, captions, return_dict=False)[0]
        output.sum().backward()
    return int(counter.get_total_flops())


def matmul_flops_per_s(device: torch.device, precision: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the ceiling of this process: what large matrix products reach here, in FLOP for a second of the clock."""
    size, repeats = MATMUL_SIZES[device.type], MATMUL_REPEATS[device.type]
    left, right = (torch.randn(size, size, device=device).to(FORWARD_DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(left)
    best_s = float("inf")
    for _ in range(MATMUL_ROUNDS):
        _wait(device)
        start_s = clock()
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        _wait(device)
        best_s = min(best_s, (clock() - start_s) / repeats)
    return 2 * size**3 / best_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""FLOPs are the published model's, and utilisation is arithmetic on them."""

from typing import Any

import pytest
import torch

from steps.model.families.unet import UNet
from steps.training.utilisation import Utilisation, matmul_flops_per_s, peak_bytes, reset_peak
from tests.steps.training.tiny_model import tiny_unet

CPU = torch.device("cpu")
# stable-diffusion-2-base's unet/config.json, where it differs from the class's defaults.
SD2: dict[str, Any] = {
    "sample_size": 64,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


def test_a_sample_of_stable_diffusion_2_costs_539_gflop() -> None:
    assert UNet().flops_of_sample(SD2, (4, 32, 32), positions=77) == 539_310_899_200


def test_flops_grow_with_the_picture_and_the_caption() -> None:
    config = tiny_unet().config
    small, wide, long = (
        UNet().flops_of_sample(config, (4, 4, side), length) for side, length in ((4, 6), (8, 6), (4, 12))
    )
    assert small < long < wide


def test_utilisation_is_arithmetic() -> None:
    figures = Utilisation(CPU, flops_of_sample=int(5e11), ceiling_flops_per_s=8e14).figures(images_per_s_per_gpu=400.0)
    assert figures["mfu"] == pytest.approx(0.25)
    assert figures["tflops_per_s_per_gpu"] == pytest.approx(200.0)
    assert figures.get("peak_memory_gb", 1.0) > 0.0


def test_the_ceiling_is_a_speed_of_this_device() -> None:
    assert matmul_flops_per_s(CPU, "float32") > 1e8


@pytest.mark.skipif(not peak_bytes(CPU), reason="this system does not say")
def test_the_peak_begins_again() -> None:
    block = torch.ones(32_000_000)
    high = peak_bytes(CPU)
    del block
    reset_peak(CPU)
    assert peak_bytes(CPU) < high - 64_000_000

"""The CPU's attention gives what diffusers' own gives."""

from __future__ import annotations

import torch

from steps.model.cpu_attention import CpuAttentionProcessor
from tests.steps.training.tiny_model import CAPTION_LENGTH, LATENT_SHAPE, WIDTH, tiny_unet


def test_outputs_and_gradients_are_those_of_the_library() -> None:
    torch.manual_seed(0)
    unet = tiny_unet()
    latents, captions = torch.randn(3, *LATENT_SHAPE), torch.randn(3, CAPTION_LENGTH, WIDTH)
    results = []
    for processor in (None, CpuAttentionProcessor()):
        if processor is not None:
            unet.set_attn_processor(processor)
        unet.zero_grad()
        output = unet(latents, torch.tensor([1, 500, 999]), captions, return_dict=False)[0]
        output.square().sum().backward()
        results.append([output.detach(), *(parameter.grad.clone() for parameter in unet.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_it_stays_near_float32() -> None:
    torch.manual_seed(0)
    unet = tiny_unet()
    unet.set_attn_processor(CpuAttentionProcessor())
    inputs = (torch.randn(3, *LATENT_SHAPE), torch.tensor([1, 500, 999]), torch.randn(3, CAPTION_LENGTH, WIDTH))
    expected = unet(*inputs, return_dict=False)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = unet(*inputs, return_dict=False)[0]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)

from __future__ import annotations

from typing import Any

import pytest
import torch

from steps.model.families.unet import UNet
from steps.serving import renderer
from steps.serving.renderer import PromptEncoder
from tests.steps.serving.tiny_pipeline import tiny_pipeline


@pytest.fixture(name="pipeline", scope="module")
def pipeline_fixture() -> Any:
    torch.manual_seed(1)
    return tiny_pipeline()


@pytest.mark.parametrize("prompt", ["", "ab", "a" * 40, "é☃ 😀"])
def test_embeddings_are_those_of_the_pipeline(pipeline: Any, prompt: str) -> None:
    expected, _ = pipeline.encode_prompt(prompt, pipeline.device, 1, False)
    embedding = PromptEncoder(UNet().reader_of(pipeline)).encode(prompt)
    assert torch.equal(embedding.conditions[0], expected[0])


@pytest.mark.parametrize(("prompt", "cut"), [("abcdef", False), ("abcdefg", True)])
def test_a_prompt_longer_than_the_text_encoder_is_marked(pipeline: Any, prompt: str, cut: bool) -> None:
    # 8 tokens: 6 letters, the start and the end.
    assert PromptEncoder(UNet().reader_of(pipeline)).encode(prompt).truncated is cut


def test_a_known_prompt_is_not_encoded_again_until_others_push_it_out(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "MAX_KEPT_PROMPTS", 2)
    encoder = PromptEncoder(UNet().reader_of(pipeline))
    first = encoder.encode("a")
    encoder.encode("b")
    assert encoder.encode("a") is first
    encoder.encode("c")
    assert encoder.encode("a") is first
    encoder.encode("d")
    encoder.encode("e")
    assert encoder.encode("a") is not first

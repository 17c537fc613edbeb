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


def test_a_prompt_of_one_part_has_the_embedding_of_always(pipeline: Any) -> None:
    encoder = PromptEncoder(UNet().reader_of(pipeline))
    for prompt in ("", "ab", "abcdef", r"a \(b\)"):
        plain = prompt.replace("\\", "")
        assert encoder.parts(prompt) == 1
        assert torch.equal(encoder.encode(prompt, 1).conditions[0], encoder.encode(plain).conditions[0])


def test_a_long_prompt_is_its_parts_side_by_side_each_with_start_and_end(pipeline: Any) -> None:
    encoder = PromptEncoder(UNet().reader_of(pipeline))
    expected = [pipeline.encode_prompt(text, pipeline.device, 1, False)[0][0] for text in ("a b c", "d e", "")]
    # A letter at a word's end is one token of its own, so that words may be parted anywhere.
    (found,) = encoder.encode("a b c BREAK d e", 3).conditions
    assert torch.equal(found, torch.cat(expected))
    assert encoder.parts("a b c d e f g", "a") == 2
    (full,) = encoder.encode("a b c d e f g", 2).conditions
    assert torch.equal(
        full,
        torch.cat([pipeline.encode_prompt(text, pipeline.device, 1, False)[0][0] for text in ("a b c d e f", "g")]),
    )


@pytest.mark.parametrize(("letters", "cut"), [(6 * renderer.MAX_PARTS, False), (6 * renderer.MAX_PARTS + 1, True)])
def test_what_is_beyond_all_parts_is_told(pipeline: Any, letters: int, cut: bool) -> None:
    encoder = PromptEncoder(UNet().reader_of(pipeline))
    parts = encoder.parts("a" * letters, "b")
    assert parts == renderer.MAX_PARTS
    assert encoder.encode("a" * letters, parts).truncated is cut


def test_weights_multiply_their_own_tokens_and_the_mean_stays() -> None:
    states = torch.randn(8, 16, generator=torch.Generator().manual_seed(2)) + 0.3
    changed = renderer.weighted(states, [1.0, 1.5, 0.0])
    torch.testing.assert_close(changed.mean(), states.mean())
    ratio = changed / states
    scale = ratio[0, 0].item()
    expected = torch.tensor([1, 1, 1.5, 0, 1, 1, 1, 1])[:, None] * scale
    torch.testing.assert_close(ratio, expected.expand(8, 16))
    assert torch.equal(renderer.weighted(states, [1.0, 1.0]), states)


def test_vectors_whose_mean_is_rounding_are_not_blown_up() -> None:
    states = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
    states -= states.mean(dim=1, keepdim=True)
    changed = renderer.weighted(states.bfloat16(), [2.0])
    assert torch.equal(changed[1], 2 * states.bfloat16()[1]) and torch.equal(changed[2:], states.bfloat16()[2:])

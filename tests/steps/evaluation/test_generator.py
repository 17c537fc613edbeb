"""A picture depends on its prompt and its seed, not on what it was batched with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steps.errors import StepError
from steps.evaluation.captions import Captions, Prompt, choose_prompts
from steps.evaluation.generator import PictureGenerator, SamplingSettings
from steps.evaluation.reference import Pictures
from steps.model.families import load_pipeline
from steps.model.families.unet import ClipReader
from tests.steps.evaluation.conftest import CAPTIONS, SIZE_PX

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DRAWING = SamplingSettings(guidance_scale=3.0, inference_steps=4, sampler="dpm++", size_px=SIZE_PX, kept_px=SIZE_PX)
PROMPTS = choose_prompts(Captions(CAPTIONS, range(len(CAPTIONS))), 6, seed=0)


@pytest.fixture(scope="module")
def pipeline(pipeline_dir: Path) -> Any:
    return load_pipeline(pipeline_dir, torch.float32)


def draw(pipeline: Any, prompts: list[Prompt], **drawing: Any) -> Pictures:
    return PictureGenerator(pipeline, replace(DRAWING, **drawing), torch.device("cpu")).draw(prompts)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "euler"])
def test_pictures_do_not_depend_on_the_batch(pipeline: Any, sampler: str) -> None:
    together = draw(pipeline, PROMPTS, sampler=sampler)
    apart = np.concatenate([draw(pipeline, [prompt], sampler=sampler) for prompt in reversed(PROMPTS)])[::-1]
    assert together.shape == (6, SIZE_PX, SIZE_PX, 3)
    assert np.abs(together.astype(int) - apart).max() <= 1, "a rounding step at most"


def test_the_same_prompts_give_the_same_bits(pipeline: Any) -> None:
    assert np.array_equal(draw(pipeline, PROMPTS), draw(pipeline, PROMPTS))


def test_seed_caption_and_guidance_each_change_the_picture(pipeline: Any) -> None:
    first = draw(pipeline, PROMPTS[:1])
    assert np.abs(first.astype(int) - draw(pipeline, [replace(PROMPTS[0], seed=5)])).max() > 10
    assert not np.array_equal(first, draw(pipeline, [replace(PROMPTS[0], caption=PROMPTS[1].caption)]))
    assert not np.array_equal(first, draw(pipeline, PROMPTS[:1], guidance_scale=1.0))


def test_a_model_of_another_size_draws_at_its_own_and_is_reduced(pipeline: Any) -> None:
    large = draw(pipeline, PROMPTS[:2], size_px=2 * SIZE_PX, kept_px=2 * SIZE_PX)
    reduced = draw(pipeline, PROMPTS[:2], size_px=2 * SIZE_PX)
    assert (large.shape, reduced.shape) == ((2, 2 * SIZE_PX, 2 * SIZE_PX, 3), (2, SIZE_PX, SIZE_PX, 3))
    assert np.abs(large.mean((1, 2)) - reduced.mean((1, 2))).max() < 2, "the same pictures"


def test_pictures_are_those_of_the_pipeline_called_by_hand(pipeline: Any) -> None:
    drawn = draw(pipeline, PROMPTS[:2])
    by_hand = pipeline(
        [prompt.caption for prompt in PROMPTS[:2]],
        generator=[torch.Generator().manual_seed(prompt.seed) for prompt in PROMPTS[:2]],
        guidance_scale=3.0,
        num_inference_steps=4,
        height=SIZE_PX,
        width=SIZE_PX,
        output_type="np",
    ).images
    assert np.abs(drawn - by_hand * 255.0).max() <= 1


def test_a_picture_that_is_not_a_number_names_its_prompt(pipeline_dir: Path) -> None:
    pipeline: Any = load_pipeline(pipeline_dir, torch.float32)
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(StepError, match=r"picture 0 \('a .*'\) is not a number.*torch\.float32: try precision"):
        draw(pipeline, PROMPTS)


def test_a_caption_is_encoded_once(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    tokens = ClipReader.tokens

    def counting(reader: ClipReader, captions: Sequence[str]) -> torch.Tensor:
        encoded.extend(captions)
        return tokens(reader, captions)

    monkeypatch.setattr(ClipReader, "tokens", counting)
    generator = PictureGenerator(pipeline, DRAWING, torch.device("cpu"))
    twice = [PROMPTS[0], replace(PROMPTS[0], index=9, seed=9), PROMPTS[1]]
    assert len(generator.draw(twice)) == 3
    generator.draw(PROMPTS[:3])
    assert sorted(encoded) == sorted(["", *(prompt.caption for prompt in PROMPTS[:3])])

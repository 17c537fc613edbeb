"""The CLIP score is torchmetrics' own, and agrees with a computation by hand."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from steps.errors import StepError
from steps.evaluation.clip_scorer import ClipEvaluator, ClipScorer, find_clip
from steps.evaluation.intervals import Floats
from tests.steps.evaluation.conftest import CAPTIONS, TOKENS, picture

CPU = torch.device("cpu")
PICTURES = np.stack([np.asarray(picture(seed)) for seed in range(10)])


def cosines_by_hand(folder: Path, captions: list[str]) -> Floats:
    model: Any = CLIPModel.from_pretrained(folder)
    tokens = CLIPTokenizer.from_pretrained(folder)(
        captions, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images=list(PICTURES), return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**tokens, **pixels)
    return np.asarray((output.image_embeds * output.text_embeds).sum(-1).double().numpy())


def test_the_score_agrees_with_a_direct_computation(evaluator_dir: Path) -> None:
    captions = list(CAPTIONS[:10])
    scorer = ClipScorer(ClipEvaluator(evaluator_dir / "clip", CPU))
    for start in (0, 4, 8):
        scorer.update(PICTURES[start : start + 4], captions[start : start + 4])
    expected = cosines_by_hand(evaluator_dir / "clip", captions)
    assert scorer.cosines() == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 1e-3, "the miniature must tell its pictures apart"


def test_margins_are_own_captions_against_the_mean_of_the_others(evaluator_dir: Path) -> None:
    captions = list(CAPTIONS[:10])
    scorer = ClipScorer(ClipEvaluator(evaluator_dir / "clip", CPU))
    scorer.update(PICTURES, captions)
    every = np.stack(
        [cosines_by_hand(evaluator_dir / "clip", captions[shift:] + captions[:shift]) for shift in range(10)]
    )
    assert scorer.margins() == pytest.approx(every[0] - every[1:].mean(axis=0), abs=1e-5)


def test_one_picture_or_one_caption_for_all_leaves_no_margin(evaluator_dir: Path) -> None:
    for pictures, captions in ((PICTURES[:1], CAPTIONS[:1]), (PICTURES, [CAPTIONS[0]] * 10)):
        scorer = ClipScorer(ClipEvaluator(evaluator_dir / "clip", CPU))
        scorer.update(pictures, list(captions))
        assert scorer.margins() == pytest.approx(np.zeros(len(pictures)), abs=1e-6)


def test_a_caption_that_is_too_long_is_cut_before_its_end_token(evaluator_dir: Path) -> None:
    captions = [" ".join(CAPTIONS[seed : seed + 8]) for seed in range(10)]
    scorer = ClipScorer(ClipEvaluator(evaluator_dir / "clip", CPU))
    scorer.update(PICTURES, captions)
    assert scorer.cosines() == pytest.approx(cosines_by_hand(evaluator_dir / "clip", captions), abs=1e-5)


def test_features_are_those_of_each_picture_in_order(evaluator_dir: Path) -> None:
    evaluator = ClipEvaluator(evaluator_dir / "clip", CPU)
    together, apart = ClipScorer(evaluator), ClipScorer(evaluator)
    together.update(PICTURES, CAPTIONS[:10])
    for row in range(10):
        apart.update(PICTURES[row : row + 1], CAPTIONS[row : row + 1])
    assert together.features().shape == (10, 12)
    assert together.features() == pytest.approx(apart.features(), abs=1e-5)


def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="clip: no CLIP model"):
        ClipEvaluator(tmp_path / "clip", CPU)


def test_a_hugging_face_cache_is_read_as_it_is(evaluator_dir: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / "3d74acf"
    shutil.copytree(evaluator_dir / "clip", snapshot)
    assert find_clip(tmp_path) == snapshot
    assert find_clip(evaluator_dir) == evaluator_dir / "clip"
    shutil.copytree(snapshot, tmp_path / "models--other--clip" / "snapshots" / "1")
    with pytest.raises(StepError, match=r"several models: models--openai.*3d74acf, models--other"):
        find_clip(tmp_path)


def test_weights_that_are_not_safetensors_are_refused(evaluator_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluator_dir / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(StepError, match="clip: cannot be loaded"):
        ClipEvaluator(tmp_path / "clip", CPU)

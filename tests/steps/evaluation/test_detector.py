"""The detector of the evaluator: a tiny random OWL-ViT whose answers are planted where truth is asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTProcessor
from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

from steps.errors import StepError
from steps.evaluation import detector as module
from steps.evaluation.clip_scorer import ClipEvaluator
from steps.evaluation.compositions import Found
from steps.evaluation.detector import Detector

CPU = torch.device("cpu")
SIDE_PX = 64
WORLD = Path("shapes/models/evaluator/clip")


def write_detector(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Write a random OWL-ViT that sees 32 px and reads the tokenizer's words."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    text = {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = OwlViTForObjectDetection(OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    images = OwlViTImageProcessorPil(size={"height": 32, "width": 32})
    OwlViTProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


@pytest.fixture(name="clip", scope="module")
def clip_fixture() -> ClipEvaluator:
    return ClipEvaluator(WORLD, CPU)


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    folder = tmp_path_factory.mktemp("evaluator") / "detector"
    write_detector(folder, tokenizer)
    return folder


def planted(detector: Detector, *things: tuple[str, float, tuple[float, float, float, float]]) -> Any:
    """Return what the network would say if it saw these things: name, score, and box in fractions of the side."""
    logits = torch.full((1, len(things) + 1, len(detector._objects)), -9.0)
    boxes = torch.full((1, len(things) + 1, 4), 0.5)
    for row, (name, score, (left, top, right, bottom)) in enumerate(things):
        logits[0, row, detector._objects.index(name)] = torch.logit(torch.tensor(score))
        boxes[0, row] = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    model = lambda **inputs: SimpleNamespace(logits=logits, pred_boxes=boxes)  # noqa: E731
    model.device = CPU  # type: ignore[attr-defined]
    return model


def test_a_random_network_finds_named_boxes_and_none_above_its_scores(folder: Path, clip: ClipEvaluator) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (SIDE_PX, SIDE_PX, 3), np.uint8)
    found = Detector(folder, 0.0, clip).find(picture)
    assert 0 < len(found) <= 16 and {one.name for one in found} <= set(Detector(folder, 0.0, clip)._objects)
    assert Detector(folder, 1.0, clip).find(picture) == []


def test_things_are_told_surest_first_and_each_once(
    folder: Path, clip: ClipEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, picture = Detector(folder, 0.2, clip), np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    things = (
        ("dog", 0.5, (0.0, 0.0, 0.5, 0.5)),
        ("dog", 0.9, (0.0, 0.0, 0.45, 0.5)),
        ("cat", 0.7, (0.0, 0.0, 0.5, 0.5)),
        ("dog", 0.3, (0.5, 0.5, 1.0, 1.0)),
        ("dog", 0.1, (0.5, 0.0, 1.0, 0.5)),
    )
    monkeypatch.setattr(detector, "_model", planted(detector, *things))
    found = detector.find(picture)
    assert [one.name for one in found] == ["dog", "cat", "dog"]
    assert found[2].box == pytest.approx([32, 32, 64, 64], abs=1e-3)
    two = next(one for one in detector.prompts.values() if one.count == 2)
    things_of_two = [(two.objects[0], *rest) for _, *rest in (things[1], things[3])]
    monkeypatch.setattr(detector, "_model", planted(detector, *things_of_two))
    assert detector.verdict(picture, two.prompt) == {"count": True}
    monkeypatch.setattr(detector, "_model", planted(detector, things_of_two[0]))
    assert detector.verdict(picture, two.prompt) == {"count": False}


def test_the_clip_names_the_colour_of_what_is_in_the_box(
    folder: Path, clip: ClipEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the local world's CLIP, in the words that it knows."""
    detector = Detector(folder, 0.2, clip)
    detector._colours = ["blue", "green", "red", "yellow"]
    monkeypatch.setattr(module, "COLOURED", ("a large {} {} in the centre on a white background",))
    inks = {"red": (222, 45, 48), "blue": (38, 82, 208), "green": (38, 150, 72), "yellow": (250, 212, 55)}
    for number, (colour, ink) in enumerate(inks.items()):
        picture = np.full((128, 256, 3), 246, np.uint8)
        left = 128 * (number % 2)
        picture[32:96, left + 32 : left + 96] = ink
        assert detector.colour(picture, Found("square", (left, 0, left + 128, 128))) == colour


def test_a_box_beyond_the_edge_or_without_width_still_has_a_colour(folder: Path, clip: ClipEvaluator) -> None:
    detector, picture = Detector(folder, 0.2, clip), np.zeros((32, 32, 3), np.uint8)
    for box in ((-5.0, -5.0, 90.0, 90.0), (8.0, 8.0, 8.2, 8.1), (31.9, 31.9, 32.0, 32.0)):
        assert detector.colour(picture, Found("dog", box)) in detector._colours


def test_another_model_no_model_and_pickled_weights_are_refused(
    folder: Path, clip: ClipEvaluator, tmp_path: Path, tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError, match=r"detector: no config\.json"):
        Detector(tmp_path / "detector", 0.2, clip)
    with pytest.raises(StepError, match="clip: cannot be loaded"):
        Detector(WORLD, 0.2, clip)
    write_detector(tmp_path / "pickled", tokenizer)
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(StepError, match="pickled: cannot be loaded"):
        Detector(tmp_path / "pickled", 0.2, clip)
    monkeypatch.setattr(module, "MODELS", ("owlv2",))
    with pytest.raises(StepError, match="a owlvit; it has to be one of owlv2"):
        Detector(folder, 0.2, clip)

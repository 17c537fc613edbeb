"""Features of a vision model beside the latents: those of the model, for the same cells of pictures of any shape."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from params.settings import SettingsError, parse_settings
from shapes import captions, pictures
from steps.data.encoding.encoder import BlockEncoder
from steps.data.encoding.encoder_settings import EncoderSettings, model_facts
from steps.data.encoding.patch_features import PatchFeatures
from steps.data.latents.block import Array, parse_layout, to_bytes
from steps.errors import StepError
from tests.steps.data.shapes_shards import PRETRAINED

transformers: Any = importlib.import_module("transformers")
CPU = torch.device("cpu")
CLIP = PRETRAINED.with_name("evaluator") / "clip"
GRID = captions.every()[::400]
SETTINGS = EncoderSettings(PRETRAINED, 3, 16, False, "float32")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluator") / "dinov2"
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 42, "patch_size": 14}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(folder)
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    sides = {"do_center_crop": True, "crop_size": {"height": 56, "width": 56}, "size": {"shortest_edge": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(means | sides))
    return folder


@pytest.fixture(scope="module")
def pixels() -> Array:
    return np.stack([pictures.draw(caption, 64) for caption in GRID])


def test_features_are_the_models_own_averaged_over_cells(dinov2: Path) -> None:
    found = PatchFeatures(dinov2, 2, CPU)
    size = torch.rand(3, 3, 56, 56) * 2 - 1
    with torch.inference_mode():
        mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
        states = transformers.Dinov2Model.from_pretrained(dinov2)(
            (size / 2 + 0.5 - mean[:, None, None]) / std[:, None, None]
        ).last_hidden_state
    # A class token, and 4 x 4 patches: a cell holds 2 x 2 of them.
    patches = states[:, 1:].reshape(3, 2, 2, 2, 2, 12).mean((2, 4))
    np.testing.assert_allclose(found.of(size).numpy(), patches.numpy(), atol=2e-3)
    wide = torch.nn.functional.interpolate(size, (28, 112), mode="bicubic", antialias=True)
    assert found.of(wide).shape == (3, 2, 2, 12) and found.of(wide).dtype == torch.float16
    torch.testing.assert_close(found.of(size[1:2]), found.of(size)[1:2])


def test_a_block_holds_the_features_and_is_the_same_without_them(pixels: Array) -> None:
    texts = [caption.text() for caption in GRID]
    plain = to_bytes(BlockEncoder(SETTINGS).encode(pixels, texts))
    encoder = BlockEncoder(replace(SETTINGS, features=CLIP, features_side=2))
    block = load(to_bytes(encoder.encode(pixels, texts)))
    facts = model_facts(PRETRAINED, CLIP, 2)
    assert block["features"].shape == (len(GRID), 2, 2, 128)
    assert facts.features_shape == (2, 2, 128)
    assert block["features"].dtype == np.float16 and np.isfinite(block["features"]).all()
    fields = {field.name: field.row_bytes for field in parse_layout(to_bytes(block)).fields}
    assert fields["features"] == 2 * 2 * 128 * 2
    del block["features"]
    assert to_bytes(block) == plain
    assert facts.identity().keys() - model_facts(PRETRAINED).identity().keys() == {"features_shape"}


def test_a_folder_that_is_no_vision_model_is_refused_by_its_key(tmp_path: Path, dinov2: Path) -> None:
    with pytest.raises(StepError, match=r"encode\.features none: no vision model is in data\.evaluator_uri/none"):
        model_facts(PRETRAINED, tmp_path / "none", 8)
    with pytest.raises(StepError, match=r"encode\.features vae: no vision model is in data\.evaluator_uri/vae"):
        model_facts(PRETRAINED, PRETRAINED / "vae", 8)
    folder = Path(shutil.copytree(PRETRAINED / "text_encoder", tmp_path / "other"))
    (folder / "preprocessor_config.json").write_text((dinov2 / "preprocessor_config.json").read_text())
    with pytest.raises(StepError, match=r"encode\.features other: no vision model of square patches"):
        PatchFeatures(folder, 2, CPU)
    with pytest.raises(SettingsError, match=r"train\.alignment_weight: Encode stores no features; set encode"):
        parse_settings("train: {alignment_weight: 0.5}", "set.yaml")
    with pytest.raises(SettingsError, match=r"encode\.features: what encodes while Train runs makes none"):
        parse_settings("encode: {features: dinov2}\nencoders: {}", "set.yaml")

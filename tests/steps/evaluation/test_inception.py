"""Inception's weights come from safetensors in the evaluator; its features are torchmetrics' own."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchmetrics.image.fid import FrechetInceptionDistance

from steps.errors import StepError
from steps.evaluation.distances import fid
from steps.evaluation.inception import convert, load_inception
from tests.steps.evaluation.conftest import picture

HAS_FIDELITY = importlib.util.find_spec("torch_fidelity") is not None
CPU = torch.device("cpu")


class Dangerous:
    """What a pickle may do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_published_weights_become_safetensors(tmp_path: Path) -> None:
    weights = {"conv.weight": torch.randn(2, 3).T, "bn.num_batches_tracked": torch.tensor(5)}
    torch.save(weights, tmp_path / "inception.pth")
    digest = convert(tmp_path / "inception.pth", tmp_path / "inception.safetensors")
    restored = load_file(tmp_path / "inception.safetensors")
    assert len(digest) == 64
    assert all(torch.equal(restored[name], value) for name, value in weights.items())


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"weights": Dangerous(tmp_path / "owned")}, tmp_path / "inception.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        convert(tmp_path / "inception.pth", tmp_path / "inception.safetensors")
    assert not (tmp_path / "owned").exists()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"inception\.safetensors: not there"):
        load_inception(tmp_path / "inception.safetensors", CPU)


@pytest.mark.skipif(HAS_FIDELITY, reason="torch-fidelity is installed")
def test_a_missing_library_is_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "inception.safetensors")
    with pytest.raises(StepError, match="needs torch-fidelity, with torchvision"):
        load_inception(tmp_path / "inception.safetensors", CPU)


@pytest.mark.skipif(not HAS_FIDELITY, reason="torch-fidelity needs a torchvision built for this torch")
def test_fid_is_that_of_torchmetrics_with_the_same_weights(tmp_path: Path) -> None:
    library: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    # The network as it is made, before weights are loaded.
    keep = {"load_state_dict": lambda *_, **__: None}
    random: Any = type("Random", (library.FeatureExtractorInceptionV3,), keep)
    torch.manual_seed(0)
    torch.save({}, tmp_path / "empty.pth")
    torch.save(
        random("inception-v3-compat", ["2048"], str(tmp_path / "empty.pth")).state_dict(), tmp_path / "random.pth"
    )
    convert(tmp_path / "random.pth", tmp_path / "inception.safetensors")
    network = load_inception(tmp_path / "inception.safetensors", CPU)
    pictures = torch.from_numpy(np.stack([np.asarray(picture(seed)) for seed in range(12)])).permute(0, 3, 1, 2)
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(tmp_path / "random.pth"))
    metric.update(pictures[:6], real=True)
    metric.update(pictures[6:], real=False)
    with torch.inference_mode():
        features = network(pictures).double().numpy()
    assert features.shape == (12, 2048)
    assert fid(features[:6], features[6:]) == pytest.approx(float(metric.compute()), abs=1e-3)

"""Inception's weights come from safetensors in the evaluator; its features are torchmetrics' own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from steps.errors import StepError
from steps.evaluation.inception import InceptionNetwork, convert, load_inception

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
    with pytest.raises(StepError, match=r"inception\.safetensors: missing"):
        load_inception(tmp_path / "inception.safetensors", CPU)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "inception.safetensors")
    with pytest.raises(StepError, match=r"not the weights of FID's Inception: \d+ parts are missing"):
        load_inception(tmp_path / "inception.safetensors", CPU)
    (tmp_path / "inception.safetensors").write_bytes(b"12345678")
    with pytest.raises(StepError, match="not the weights of FID's Inception"):
        load_inception(tmp_path / "inception.safetensors", CPU)


def made_up_weights() -> dict[str, torch.Tensor]:
    """Return weights that every machine makes alike: sines of the position, scaled as trained ones are."""
    weights = {}
    for number, (name, value) in enumerate(sorted(InceptionNetwork().state_dict().items())):
        place = torch.arange(value.numel(), dtype=torch.float64)
        if not value.is_floating_point():
            made = place
        elif name.endswith(("running_var", "bn.weight")):
            made = 1 + 0.5 * torch.sin(0.7 * place + number)
        elif value.dim() > 1:
            made = torch.sin(0.001 * place**2 + 1.3 * place + number) * (2.0 / value[0].numel()) ** 0.5
        else:
            made = 0.1 * torch.sin(1.1 * place + number)
        weights[name] = made.reshape(value.shape).to(value.dtype)
    return weights


# What torch-fidelity 0.4.0's network gives through torchmetrics 1.9's own forward for these weights and pictures:
# features 0, 256, 512, ... of each.
EXPECTED = [
    [0.12122, 0.00000, 0.00798, 0.19851, 0.00146, 0.16328, 0.00000, 0.00000],
    [0.12145, 0.00000, 0.00795, 0.19850, 0.00148, 0.16344, 0.00000, 0.00000],
]


def test_features_are_those_of_the_published_network(tmp_path: Path) -> None:
    # The published file holds the classifier, too.
    save_file({**made_up_weights(), "fc.bias": torch.zeros(1008)}, tmp_path / "inception.safetensors")
    network = load_inception(tmp_path / "inception.safetensors", CPU)
    height, width = torch.meshgrid(torch.arange(40), torch.arange(56), indexing="ij")
    stripes = torch.stack([6 * height, 4 * width, height * width % 256])
    pictures = torch.stack([stripes, 255 - stripes // 4]).to(torch.uint8)
    with torch.inference_mode():
        features = network(pictures)
    assert features.shape == (2, 2048)
    assert features[:, ::256].numpy() == pytest.approx(np.array(EXPECTED), abs=2e-5)

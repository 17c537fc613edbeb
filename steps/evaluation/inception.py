"""Inception v3's features, on which published FIDs stand: the network, and its weights from the evaluator folder.

Reads inception.safetensors; downloads nothing. The published weights (pt_inception-2015-12-05-6726825d.pth, on the
releases page of github.com/toshas/torch-fidelity) are a torch file; this turns it into safetensors, once, and prints
its digest:

    python -m steps.evaluation.inception WEIGHTS.pth EVALUATOR/inception.safetensors

The network is that of Szegedy et al. 2015, arXiv:1512.00567, with which Heusel et al. measured. It is written out here
because the library that holds it, torch-fidelity, needs a torchvision built for the very torch; names of the parts are
those of its published weights. TensorFlow's graph differs from torchvision's network in three things: pooling beside
convolutions leaves the padding out of the mean, the last block takes the maximum, and pictures are scaled to
(x - 128) / 128.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from params.files import file_digest
from steps.errors import StepError

WEIGHTS_FILE: Final = "inception.safetensors"
SIDE_PX: Final = 299

# Output channels, kernel, padding and stride of one convolution.
Layer = tuple[int, tuple[int, int], tuple[int, int], int]


def load_inception(weights: Path, device: torch.device) -> nn.Module:
    """Return the network: pictures (N, 3, H, W) uint8 to features (N, 2048).

    Raises StepError where the weights are missing or are another network's.
    """
    if not weights.is_file():
        raise StepError(f"{weights}: not there; put Inception's weights into the evaluator or set fid_features to clip")
    network = InceptionNetwork().eval()
    try:
        # The classifier's weights are left over: features are read before it.
        missing = network.load_state_dict(load_file(weights), strict=False).missing_keys
    except (RuntimeError, SafetensorError) as error:
        raise StepError(
            f"{weights}: not the weights of FID's Inception: {' '.join(str(error).split())[:300]}"
        ) from None
    if missing:
        raise StepError(f"{weights}: not the weights of FID's Inception: {len(missing)} parts are missing")
    return network.requires_grad_(False).to(device)


def convert(source: Path, target: Path) -> str:
    """Turn a torch file of weights into safetensors and return the SHA-256 of the result; no pickled code is run."""
    weights: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: value.contiguous() for name, value in weights.items() if isinstance(value, Tensor)}, target)
    return file_digest(target)


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, layer: Layer) -> None:
        super().__init__()
        outputs, kernel, padding, stride = layer
        self.conv = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H', W')."""
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Chains of convolutions side by side, and a pooling: their outputs are joined by channel.

    A chain may end in a fork: two convolutions of the same input, named `..a` and `..b`.
    """

    def __init__(self, channels: int, chains: Mapping[str, Sequence[Layer]], pool: str, pool_channels: int = 0) -> None:
        """Make the block.

        `pool` is `mean`, followed by a 1 x 1 convolution to `pool_channels`; `max`, followed by the same; or `halve`,
        which takes the maximum at stride 2 and follows chains of stride 2.
        """
        super().__init__()
        self._chains: list[list[str]] = []
        for name, layers in chains.items():
            inputs, names = channels, []
            for number, layer in enumerate(layers, 1):
                # A chain of one has no number.
                part = f"branch{name}_{number}" if len(layers) > 1 or name.startswith("3x3dbl") else f"branch{name}"
                forked = layer[1] == (1, 3) and layer[0] == 384
                for letter in ("a", "b") if forked else ("",):
                    turned = (layer[0], layer[1][::-1], layer[2][::-1], layer[3]) if letter == "b" else layer
                    self.add_module(part + letter, Convolution(inputs, turned))
                names.append(part)
                inputs = layer[0]
            self._chains.append(names)
        self._pool = pool
        if pool != "halve":
            self.branch_pool = Convolution(channels, one(pool_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined outputs."""
        return torch.cat([*(self._run(names, x) for names in self._chains), self._pooled(x)], 1)

    def _run(self, names: Sequence[str], x: Tensor) -> Tensor:
        parts = self._modules
        for name in names:
            forks = [part for letter in ("", "a", "b") if (part := parts.get(name + letter)) is not None]
            x = torch.cat([fork(x) for fork in forks], 1)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "halve":
            return functional.max_pool2d(x, 3, 2)
        if self._pool == "max":
            return self.branch_pool(functional.max_pool2d(x, 3, 1, 1))  # type: ignore[no-any-return]
        return self.branch_pool(functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))  # type: ignore[no-any-return]


def one(outputs: int) -> Layer:
    """Return a 1 x 1 convolution."""
    return outputs, (1, 1), (0, 0), 1


def square(outputs: int, side: int, stride: int = 1, padded: bool = True) -> Layer:
    """Return a convolution with a square kernel."""
    around = side // 2 if padded else 0
    return outputs, (side, side), (around, around), stride


def wide(outputs: int, side: int) -> Layer:
    """Return a 1 x side convolution."""
    return outputs, (1, side), (0, side // 2), 1


def tall(outputs: int, side: int) -> Layer:
    """Return a side x 1 convolution."""
    return outputs, (side, 1), (side // 2, 0), 1


class InceptionNetwork(nn.Module):
    """Pictures, (N, 3, H, W) uint8, to the pooled features on which FID is defined, (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        stem = {
            "Conv2d_1a_3x3": square(32, 3, stride=2, padded=False),
            "Conv2d_2a_3x3": square(32, 3, padded=False),
            "Conv2d_2b_3x3": square(64, 3),
            "Conv2d_3b_1x1": one(80),
            "Conv2d_4a_3x3": square(192, 3, padded=False),
        }
        channels = 3
        for name, layer in stem.items():
            self.add_module(name, Convolution(channels, layer))
            channels = layer[0]
        for name, block in _blocks().items():
            self.add_module(name, block)
        self._stem, self._body = tuple(stem), tuple(_blocks())

    def forward(self, pictures: Tensor) -> Tensor:
        """Scale to 299 px, bilinear with antialiasing as torchmetrics does, and run the network."""
        x = functional.interpolate(
            pictures.float(), size=(SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False, antialias=True
        )
        x = (x - 128) / 128
        for name in self._stem:
            x = self.get_submodule(name)(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = functional.max_pool2d(x, 3, 2)
        for name in self._body:
            x = self.get_submodule(name)(x)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def _blocks() -> dict[str, Block]:
    blocks = {}
    for name, channels, pool_channels in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        chains = {
            "1x1": [one(64)],
            "5x5": [one(48), square(64, 5)],
            "3x3dbl": [one(64), square(96, 3), square(96, 3)],
        }
        blocks[name] = Block(channels, chains, "mean", pool_channels)
    blocks["Mixed_6a"] = Block(
        288,
        {
            "3x3": [square(384, 3, stride=2, padded=False)],
            "3x3dbl": [one(64), square(96, 3), square(96, 3, stride=2, padded=False)],
        },
        "halve",
    )
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        chains = {
            "1x1": [one(192)],
            "7x7": [one(inner), wide(inner, 7), tall(192, 7)],
            "7x7dbl": [one(inner), tall(inner, 7), wide(inner, 7), tall(inner, 7), wide(192, 7)],
        }
        blocks[name] = Block(768, chains, "mean", 192)
    blocks["Mixed_7a"] = Block(
        768,
        {
            "3x3": [one(192), square(320, 3, stride=2, padded=False)],
            "7x7x3": [one(192), wide(192, 7), tall(192, 7), square(192, 3, stride=2, padded=False)],
        },
        "halve",
    )
    for name, channels, pool in (("Mixed_7b", 1280, "mean"), ("Mixed_7c", 2048, "max")):
        chains = {
            "1x1": [one(320)],
            "3x3": [one(384), wide(384, 3)],
            "3x3dbl": [one(448), square(384, 3), wide(384, 3)],
        }
        blocks[name] = Block(channels, chains, pool, 192)
    return blocks


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

"""Inception v3's features, which published FIDs use: the network, and its weights from the evaluator folder.

Reads inception.yaml, which has its layers, and inception.safetensors; downloads nothing. The published weights
(pt_inception-2015-12-05-6726825d.pth, on the releases page of github.com/toshas/torch-fidelity) are a torch file; this
turns it into safetensors, once, and prints its digest:

    python -m steps.evaluation.inception WEIGHTS.pth EVALUATOR/inception.safetensors

The network is that of Szegedy et al. 2015, arXiv:1512.00567, which Heusel et al. measured with. It is built here
because torch-fidelity, which has it, needs a torchvision built for the exact version of torch; its parts are named as
in the published weights. It differs from torchvision's network as TensorFlow's graph does: mean pooling leaves out the
padding, the last block pools the maximum, and pictures are scaled to (x - 128) / 128.
"""

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
from params.tables import table_beside
from steps.errors import StepError
from steps.evaluation import resizing
from steps.evaluation.resizing import Resize

WEIGHTS_FILE: Final = "inception.safetensors"
SIDE_PX: Final = 299


def load_inception(weights: Path, device: torch.device, resize: Resize = resizing.torchmetrics) -> nn.Module:
    """Return the network: pictures (N, 3, H, W) uint8 to features (N, 2048). StepError: missing or other weights."""
    if not weights.is_file():
        raise StepError(f"{weights}: missing; put Inception's weights into the evaluator or set fid_features to clip")
    network = InceptionNetwork(resize).eval()
    try:
        # Not strict: the classifier's weights are not needed.
        missing = network.load_state_dict(load_file(weights), strict=False).missing_keys
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StepError(f"{weights}: not the weights of FID's Inception: {reason}") from None
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

    def __init__(
        self, channels: int, outputs: int, height: int = 1, width: int = 1, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(channels, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H', W')."""
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Parallel chains of convolutions and a pooling, whose outputs are joined by channel.

    A chain may have a fork: two convolutions of the same input, 1 x 3 and 3 x 1, named `..a` and `..b`.
    """

    def __init__(
        self, channels: int, chains: Mapping[str, Sequence[Sequence[Any]]], pool: str, pool_channels: int = 0
    ) -> None:
        super().__init__()
        self._chains: list[list[str]] = []
        for name, layers in chains.items():
            inputs, names = channels, []
            for number, layer in enumerate(layers, 1):
                # The published names number only the parts of longer chains.
                part = f"branch{name}_{number}" if len(layers) > 1 or name.startswith("3x3dbl") else f"branch{name}"
                outputs = layer[0]
                if layer[1:] == [1, 3]:
                    self.add_module(f"{part}a", Convolution(inputs, outputs, 1, 3))
                    self.add_module(f"{part}b", Convolution(inputs, outputs, 3, 1))
                else:
                    self.add_module(part, Convolution(inputs, *layer))
                names.append(part)
                inputs = outputs
            self._chains.append(names)
        self._pool = pool
        if pool != "halve":
            self.branch_pool = Convolution(channels, pool_channels)

    def forward(self, x: Tensor) -> Tensor:
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


class InceptionNetwork(nn.Module):
    """Pictures, (N, 3, H, W) uint8, to the pooled features on which FID is defined, (N, 2048)."""

    def __init__(self, resize: Resize = resizing.torchmetrics) -> None:
        super().__init__()
        self._resize = resize
        layers, channels = table_beside(__file__), 3
        for name, layer in layers["stem"].items():
            self.add_module(name, Convolution(channels, *layer))
            channels = layer[0]
        for name, block in layers["blocks"].items():
            self.add_module(name, Block(**block))

    def forward(self, pictures: Tensor) -> Tensor:
        """Resize to 299 px and run the network."""
        x = (self._resize(pictures, SIDE_PX) - 128) / 128
        for name, part in self.named_children():
            x = part(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = functional.max_pool2d(x, 3, 2)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

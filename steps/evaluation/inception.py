"""Inception v3's features, which published FIDs use: the network, and its weights from the evaluator folder.

Reads inception.safetensors; downloads nothing. The published weights (pt_inception-2015-12-05-6726825d.pth, on the
releases page of github.com/toshas/torch-fidelity) are a torch file; this turns it into safetensors, once, and prints
its digest:

    python -m steps.evaluation.inception WEIGHTS.pth EVALUATOR/inception.safetensors

The network is that of Szegedy et al. 2015, arXiv:1512.00567, which Heusel et al. measured with. It is written out here
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
from steps.errors import StepError
from steps.evaluation import resizing
from steps.evaluation.resizing import Resize

WEIGHTS_FILE: Final = "inception.safetensors"
SIDE_PX: Final = 299

# Output channels, kernel, padding and stride of one convolution.
Layer = tuple[int, tuple[int, int], tuple[int, int], int]


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

    def __init__(self, channels: int, layer: Layer) -> None:
        super().__init__()
        outputs, kernel, padding, stride = layer
        self.conv = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H', W')."""
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Parallel chains of convolutions and a pooling, whose outputs are joined by channel.

    A chain may have a fork: two convolutions of the same input, named `..a` and `..b`.
    """

    def __init__(self, channels: int, chains: Mapping[str, Sequence[Layer]], pool: str, pool_channels: int = 0) -> None:
        """Build the block.

        `pool` is `mean` or `max`, each followed by a 1 x 1 convolution to `pool_channels`, or `halve`, the maximum at
        stride 2, for chains of stride 2.
        """
        super().__init__()
        self._chains: list[list[str]] = []
        for name, layers in chains.items():
            inputs, names = channels, []
            for number, layer in enumerate(layers, 1):
                # The published names number only the parts of longer chains.
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
            self.branch_pool = Convolution(channels, conv(pool_channels))

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


def conv(outputs: int, height: int = 1, width: int = 1, stride: int = 1, padded: bool = True) -> Layer:
    """Return a convolution with a kernel of height x width."""
    return outputs, (height, width), (height // 2, width // 2) if padded else (0, 0), stride


class InceptionNetwork(nn.Module):
    """Pictures, (N, 3, H, W) uint8, to the pooled features on which FID is defined, (N, 2048)."""

    def __init__(self, resize: Resize = resizing.torchmetrics) -> None:
        super().__init__()
        self._resize = resize
        stem = {
            "Conv2d_1a_3x3": conv(32, 3, 3, stride=2, padded=False),
            "Conv2d_2a_3x3": conv(32, 3, 3, padded=False),
            "Conv2d_2b_3x3": conv(64, 3, 3),
            "Conv2d_3b_1x1": conv(80),
            "Conv2d_4a_3x3": conv(192, 3, 3, padded=False),
        }
        channels = 3
        for name, layer in stem.items():
            self.add_module(name, Convolution(channels, layer))
            channels = layer[0]
        for name, block in _blocks().items():
            self.add_module(name, block)

    def forward(self, pictures: Tensor) -> Tensor:
        """Resize to 299 px and run the network."""
        x = (self._resize(pictures, SIDE_PX) - 128) / 128
        for name, part in self.named_children():
            x = part(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = functional.max_pool2d(x, 3, 2)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def _blocks() -> dict[str, Block]:
    blocks = {}
    for name, channels, pool_channels in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        chains = {
            "1x1": [conv(64)],
            "5x5": [conv(48), conv(64, 5, 5)],
            "3x3dbl": [conv(64), conv(96, 3, 3), conv(96, 3, 3)],
        }
        blocks[name] = Block(channels, chains, "mean", pool_channels)
    chains = {
        "3x3": [conv(384, 3, 3, stride=2, padded=False)],
        "3x3dbl": [conv(64), conv(96, 3, 3), conv(96, 3, 3, stride=2, padded=False)],
    }
    blocks["Mixed_6a"] = Block(288, chains, "halve")
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        chains = {
            "1x1": [conv(192)],
            "7x7": [conv(inner), conv(inner, 1, 7), conv(192, 7, 1)],
            "7x7dbl": [conv(inner), conv(inner, 7, 1), conv(inner, 1, 7), conv(inner, 7, 1), conv(192, 1, 7)],
        }
        blocks[name] = Block(768, chains, "mean", 192)
    chains = {
        "3x3": [conv(192), conv(320, 3, 3, stride=2, padded=False)],
        "7x7x3": [conv(192), conv(192, 1, 7), conv(192, 7, 1), conv(192, 3, 3, stride=2, padded=False)],
    }
    blocks["Mixed_7a"] = Block(768, chains, "halve")
    for name, channels, pool in (("Mixed_7b", 1280, "mean"), ("Mixed_7c", 2048, "max")):
        chains = {
            "1x1": [conv(320)],
            "3x3": [conv(384), conv(384, 1, 3)],
            "3x3dbl": [conv(448), conv(384, 3, 3), conv(384, 1, 3)],
        }
        blocks[name] = Block(channels, chains, pool, 192)
    return blocks


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

"""Inception v3's features, on which published FIDs stand: torchmetrics' own network, weights from the evaluator folder.

Reads inception.safetensors; downloads nothing. torch-fidelity publishes the weights as a torch file; this turns it into
safetensors, once, and prints its digest:

    python -m steps.evaluation.inception WEIGHTS.pth EVALUATOR/inception.safetensors
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics.image.fid import NoTrainInceptionV3

from steps.errors import StepError

WEIGHTS_FILE: Final = "inception.safetensors"
# The pooled layer that FID is defined on.
LAYER: Final = "2048"


def load_inception(weights: Path, device: torch.device) -> nn.Module:
    """Return the network: pictures (N, 3, H, W) uint8 to features (N, 2048).

    Raises StepError where the weights or torch-fidelity, which holds the network's code, are missing.
    """
    if not weights.is_file():
        raise StepError(f"{weights}: not there; put Inception's weights into the evaluator or set fid_features to clip")
    with tempfile.TemporaryDirectory() as folder:
        # The network takes a torch file only: it gets one that was written a line earlier, from safetensors.
        path = Path(folder) / "inception.pth"
        torch.save(load_file(weights), path)
        try:
            network: nn.Module = NoTrainInceptionV3("inception-v3-compat", [LAYER], str(path))
        except ModuleNotFoundError:
            raise StepError("fid_features=inception needs torch-fidelity, with torchvision; or use clip") from None
    return network.to(device)


def convert(source: Path, target: Path) -> str:
    """Turn a torch file of weights into safetensors and return the SHA-256 of the result; no pickled code is run."""
    weights: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    save_file({name: value.contiguous() for name, value in weights.items() if isinstance(value, Tensor)}, target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

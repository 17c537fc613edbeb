"""Inception v3's features, on which published FIDs stand: weights from the evaluator folder.

Reads inception.safetensors; downloads nothing. The published weights (pt_inception-2015-12-05-6726825d.pth, on the
releases page of github.com/toshas/torch-fidelity) are a torch file; this turns it into safetensors, once, and prints
its digest:

    python -m steps.evaluation.inception WEIGHTS.pth EVALUATOR/inception.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from params.files import file_digest
from steps.errors import StepError
from steps.evaluation.inception_network import InceptionNetwork

WEIGHTS_FILE: Final = "inception.safetensors"


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


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))

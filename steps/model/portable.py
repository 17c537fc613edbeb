"""Rewrites a copied part of a model so that it draws the same in other people's programs.

Reads and replaces <part>/*.safetensors, their index and config.json. Every part is in float32, because a pipeline of
mixed precisions loads and then fails at the first prompt; and a CLIP text encoder's weights are named `text_model.*`,
as every published checkpoint has them: transformers 5 reads both layouts, transformers 4 only this one, and fills what
it does not find with random numbers. Training's export calls it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from safetensors import safe_open
from safetensors.torch import save_file

from params.files import whole_file, write_json
from steps.model.json_object import read_object
from steps.model.pretrained import CONFIG_FILE, TEXT_ENCODER

PREFIX: Final = "text_model."
PRECISION: Final = "float32"
# What transformers calls it: today, and before version 5.
PRECISION_KEYS: Final = ("dtype", "torch_dtype")


def make_portable(part: Path) -> None:
    """Rewrite the weights of a part in place, in float32 and with the published names."""
    for file in sorted(part.glob("*.safetensors")):
        _rewrite(file)
    for index in part.glob("*.safetensors.index.json"):
        content = read_object(index)
        content["weight_map"] = {_published(part, name): file for name, file in content["weight_map"].items()}
        write_json(index, content)
    config = read_object(part / CONFIG_FILE) if (part / CONFIG_FILE).is_file() else {}
    stated = {key: PRECISION for key in PRECISION_KEYS if key in config}
    if stated:
        write_json(part / CONFIG_FILE, {**config, **stated})


def _rewrite(file: Path) -> None:
    with safe_open(file, "pt") as weights:
        metadata, names = weights.metadata(), list(weights.keys())
        tensors = {_published(file.parent, name): weights.get_tensor(name) for name in names}
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if set(floats) != set(names) or any(floats[name].dtype != tensors[name].dtype for name in floats):
        with whole_file(file) as partial:
            save_file(floats, partial, metadata=metadata)


def _published(part: Path, name: str) -> str:
    flat = part.name == TEXT_ENCODER and name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return PREFIX + name if flat else name

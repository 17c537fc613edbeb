"""Rewrites a copied part of a model so that it draws the same in other people's programs.

Reads and replaces <part>/*.safetensors, their index and config.json. Every part is in one precision, because a pipeline
of mixed precisions loads and then fails at the first prompt; and a CLIP text encoder's weights are named
`text_model.*`, as every published checkpoint has them: transformers 5 reads both layouts, transformers 4 only this one,
and fills what it does not find with random numbers. Training's export calls it, and `python -m steps export`.
"""

from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from params.families import CONFIG_FILE, TEXT_ENCODER
from params.files import whole_file, write_json, write_text
from steps.errors import StepError
from steps.model.json_object import read_object

PREFIX: Final = "text_model."
CLIPS: Final = (TEXT_ENCODER, f"{TEXT_ENCODER}_2")
# In what a program computes unless told otherwise, however weights are stored: diffusers takes float32 for its own
# parts, and transformers 5 what the text encoder's configuration says.
PRECISION: Final = "float32"
# What transformers calls it: today, and before version 5.
PRECISION_KEYS: Final = ("dtype", "torch_dtype")


def make_portable(part: Path, dtype: torch.dtype = torch.float32) -> None:
    """Rewrite a part in place, in one precision, by published names. Raises StepError for a weight too large for it."""
    for file in sorted(part.glob("*.safetensors")):
        _rewrite(file, dtype)
    for index in part.glob("*.safetensors.index.json"):
        content = read_object(index)
        content["weight_map"] = {_published(part, name): file for name, file in content["weight_map"].items()}
        write_json(index, content)
    config = read_object(part / CONFIG_FILE) if (part / CONFIG_FILE).is_file() else {}
    is_text = bool(config) and part.name.startswith(TEXT_ENCODER)
    stated = {key: PRECISION for key in PRECISION_KEYS if is_text or key in config}
    if config | stated != config:
        write_json(part / CONFIG_FILE, {**config, **stated})


def add_vocabulary(tokenizer: Path) -> None:
    """Write vocab.json and merges.txt where a tokenizer has tokenizer.json alone: transformers 4 reads nothing else."""
    whole = tokenizer / "tokenizer.json"
    if (tokenizer / "vocab.json").is_file() or not whole.is_file():
        return
    model = read_object(whole)["model"]
    if "merges" not in model:
        return
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    write_json(tokenizer / "vocab.json", model["vocab"])
    write_text(tokenizer / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))


def _rewrite(file: Path, dtype: torch.dtype) -> None:
    with safe_open(file, "pt") as weights:
        metadata, names = weights.metadata(), list(weights.keys())
        tensors = {_published(file.parent, name): weights.get_tensor(name) for name in names}
    floats = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in floats.items():
        if not torch.equal(tensor.isfinite(), tensors[name].isfinite()):
            raise StepError(f"{file.parent.name}: {name} has weights too large for {dtype}: export it without --half")
    if set(floats) != set(names) or any(floats[name].dtype != tensors[name].dtype for name in floats):
        with whole_file(file) as partial:
            save_file(floats, partial, metadata=metadata)


def _published(part: Path, name: str) -> str:
    flat = part.name in CLIPS and name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return PREFIX + name if flat else name

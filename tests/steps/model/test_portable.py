"""What is exported loads and says the same in any program, whatever precision and names the source had."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from steps.model.portable import make_portable

TOKENS = torch.arange(8)[None]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    make: Any = CLIPTextModel
    make(config).half().save_pretrained(tmp_path / "text_encoder")
    return tmp_path / "text_encoder"


def states(part: Path) -> torch.Tensor:
    load: Any = CLIPTextModel.from_pretrained
    with torch.no_grad():
        output: torch.Tensor = load(part, dtype=torch.float32).eval()(TOKENS).last_hidden_state
    return output


def test_weights_are_in_float32_under_the_published_names_and_mean_the_same(part: Path) -> None:
    flat = {name.removeprefix("text_model."): tensor for name, tensor in load_file(part / "model.safetensors").items()}
    save_file(flat, part / "model.safetensors", metadata={"format": "pt"})
    before = states(part)
    make_portable(part)
    weights = load_file(part / "model.safetensors")
    assert all(name.startswith("text_model.") for name in weights)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert json.loads((part / "config.json").read_text())["dtype"] == "float32"
    assert torch.equal(states(part), before)


def test_what_is_portable_already_is_left_as_it_is(part: Path) -> None:
    make_portable(part)
    before = (part / "model.safetensors").stat()
    make_portable(part)
    assert (part / "model.safetensors").stat().st_ino == before.st_ino


def test_an_index_of_several_files_names_the_weights_as_the_files_do(part: Path) -> None:
    index = part / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"encoder.layers.0.bias": "model.safetensors"}}))
    make_portable(part)
    assert json.loads(index.read_text())["weight_map"] == {"text_model.encoder.layers.0.bias": "model.safetensors"}

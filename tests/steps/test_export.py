"""A model that is taken elsewhere draws the same picture, whatever it is written as."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steps.__main__ import main
from steps.model.digest import checked_digest, write_checksums
from steps.model.families import load_pipeline
from steps.model.families.single_file import FolderConfigs, layout
from steps.model.families.unet import UNet
from tests.steps.serving.tiny_pipeline import write_pipeline

PARTS = ("unet", "vae", "text_encoder")
ACTIVATIONS = ("quick_gelu", "gelu")
diffusers: Any = importlib.import_module("diffusers")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture(params=ACTIVATIONS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model that predicts v, with the text encoder of Stable Diffusion 1, and with that of 2."""
    folder = write_pipeline(tmp_path / "model")
    change(folder / "text_encoder" / "config.json", hidden_act=request.param)
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    return folder


def export(model: Path, *flags: str) -> int:
    out = model.parent / "out"
    return main(["export", "--model", str(model), "--out", str(out), "--single-file", f"{out}.safetensors", *flags])


def test_every_weight_is_in_the_single_file_and_comes_back_to_the_bit(model: Path, tmp_path: Path) -> None:
    assert export(model) == 0
    read, expected = (
        UNet().load_single_file(tmp_path / "out.safetensors", tmp_path / "out"),
        load_pipeline(model, torch.float32),
    )
    for part in PARTS:
        weights = getattr(expected, part).state_dict()
        again = getattr(read, part).state_dict()
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[name], weights[name]) for name in weights), part


def test_other_programs_are_told_what_the_model_predicts(model: Path, tmp_path: Path) -> None:
    assert export(model, "--check", "false") == 0
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert {"v_pred", "ztsnr"} <= set(file.keys())
        assert file.metadata()["modelspec.prediction_type"] == "v"
    config = yaml.safe_load((tmp_path / "out.yaml").read_text())
    assert config["model"]["params"]["parameterization"] == "v"


def test_a_model_of_noise_prediction_has_no_marker_of_another(tmp_path: Path) -> None:
    assert export(write_pipeline(tmp_path / "model"), "--check", "false") == 0
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert not {"v_pred", "ztsnr"} & set(file.keys())
        assert file.metadata()["modelspec.prediction_type"] == "epsilon"
    assert yaml.safe_load((tmp_path / "out.yaml").read_text())["model"]["params"]["parameterization"] == "eps"


def test_half_is_half_in_every_part_and_draws_without_an_option(model: Path, tmp_path: Path) -> None:
    assert export(model, "--half", "true") == 0
    for part in PARTS:
        file = next((tmp_path / "out" / part).glob("*.safetensors"))
        assert {tensor.dtype for tensor in load_file(file).values() if tensor.is_floating_point()} == {torch.float16}
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert {getattr(pipeline, part).dtype for part in PARTS} == {torch.float32}
    checked_digest(tmp_path / "out")


def test_a_tokenizer_of_transformers_5_gets_the_files_that_4_reads(model: Path, tmp_path: Path) -> None:
    assert not (model / "tokenizer" / "vocab.json").exists()
    assert export(model, "--check", "false") == 0
    vocabulary = json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text())
    assert vocabulary == load_pipeline(model, torch.float32).tokenizer.get_vocab()
    assert (tmp_path / "out" / "tokenizer" / "merges.txt").read_text().startswith("#version")


def test_a_weight_beyond_half_precision_is_refused_by_name(model: Path, tmp_path: Path, capsys: Any) -> None:
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"conv_in.bias": torch.full((16,), 1e5)}, file, metadata={"format": "pt"})
    assert export(model, "--half", "true") == 1
    assert "unet: conv_in.bias" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "nothing half made is left"


def test_a_weight_without_a_place_is_refused_by_name(model: Path, capsys: Any) -> None:
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"decoder.extra.weight": torch.ones(1)}, file, metadata={"format": "pt"})
    assert export(model, "--check", "false") == 1
    assert "no place for decoder.extra.weight" in capsys.readouterr().err


def test_a_damaged_model_and_what_exists_already_are_refused(model: Path, tmp_path: Path, capsys: Any) -> None:
    write_checksums(model)
    change(model / "vae" / "config.json", latent_channels=4, added=1)
    assert export(model) == 1
    assert "damaged" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    assert export(model) == 1
    assert "exists already" in capsys.readouterr().err


def test_names_of_attention_in_published_vaes_have_the_same_places(model: Path) -> None:
    described = FolderConfigs(model)
    unet, vae, text = (load_file(next((model / part).glob("*.safetensors"))) for part in PARTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = dict(vae)
    for name in vae:
        for new, was in old.items():
            if f".{new}." in name:
                renamed[name.replace(new, was)] = renamed.pop(name)
    assert renamed.keys() != vae.keys()
    first, second = layout(described, unet, vae, text), layout(described, unet, renamed, text)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_check_that_fails_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("steps.export.TOLERANCES", {torch.float32: -1.0})
    assert export(model) == 1
    assert "draws another picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.safetensors").exists()

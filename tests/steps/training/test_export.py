"""The exported model is a whole pipeline, without anything that would have to be unpickled."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from params.programs import TrainArguments
from steps.data.loading.latents import LatentsDataset
from steps.model.digest import checked_digest, folder_digest
from steps.model.families import load_pipeline
from steps.model.families.unet import UNet
from steps.training.export import export_model
from steps.training.identity import code_digest
from steps.training.model import build_network
from steps.training.ranks import World
from steps.training.state import TrainingState

CPU = torch.device("cpu")


def state_of(arguments: TrainArguments, pretrained: Path, latents: Path) -> TrainingState:
    unet = build_network(UNet(), arguments, pretrained, LatentsDataset(latents).manifest, CPU)
    state = TrainingState(unet, arguments, World(rank=0, size=1, local_rank=0, device=CPU))
    if state.average is not None:
        for tensor in state.average.tensors:
            tensor.mul_(2)
    return state


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_the_average_is_exported_where_there_is_one(
    pretrained: Path, latents: Path, tmp_path: Path, decay: float
) -> None:
    arguments = TrainArguments(precision="float32", ema_decay=decay)
    state = state_of(arguments, pretrained, latents)
    with state.averaged():
        export_model(tmp_path, pretrained, state, arguments, "", {})
    exported = UNet().load(tmp_path, torch.float32).state_dict()
    factor = 2 if decay else 1
    for name, parameter in zip(state.names, state.parameters, strict=True):
        assert torch.equal(exported[name], factor * parameter.detach()), name


def test_it_loads_and_draws_and_knows_what_it_predicts(pretrained: Path, latents: Path, tmp_path: Path) -> None:
    arguments = TrainArguments(precision="float32", prediction_type="v_prediction", zero_terminal_snr=True)
    export_model(tmp_path, pretrained, state_of(arguments, pretrained, latents), arguments, "", {"a": 1})
    pipeline = load_pipeline(tmp_path, torch.float32)
    config: Any = pipeline.scheduler.config
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing, config.clip_sample) == (
        "v_prediction",
        True,
        "trailing",
        False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(["a"], num_inference_steps=2, output_type="np").images
    assert pictures.shape == (1, 8, 8, 3), "pictures of the size that it learnt from"


def test_the_parts_that_made_the_latents_are_copied_but_for_pickles(
    pretrained: Path, latents: Path, tmp_path: Path
) -> None:
    source = tmp_path / "pretrained"
    shutil.copytree(pretrained, source)
    torch.save({}, source / "vae" / "diffusion_pytorch_model.bin")
    arguments = TrainArguments(precision="float32")
    model = tmp_path / "model"
    export_model(model, source, state_of(arguments, pretrained, latents), arguments, "log\n", {"a": 1})
    assert folder_digest(model / "tokenizer") == folder_digest(pretrained / "tokenizer")
    for file in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        copied, original = load_file(model / file), load_file(pretrained / file)
        assert {name.removeprefix("text_model.") for name in copied} == {
            name.removeprefix("text_model.") for name in original
        }
        assert {tensor.dtype for tensor in copied.values() if tensor.is_floating_point()} == {torch.float32}
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in files} <= {".json", ".jsonl", ".safetensors", ".txt"}
    assert {"model_index.json", "lineage.json", "training_log.jsonl"} <= files
    assert json.loads((model / "checksums.json").read_text()).keys() == files - {"checksums.json"}
    assert checked_digest(model) == folder_digest(model)
    assert json.loads((model / "lineage.json").read_text()) == {"a": 1}


def test_a_safety_checker_is_kept_with_its_feature_extractor_and_named(
    pretrained: Path, latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = TrainArguments(precision="float32")
    source = shutil.copytree(pretrained, tmp_path / "pretrained")

    def index(name: str) -> dict[str, Any]:
        export_model(tmp_path / name, source, state_of(arguments, pretrained, latents), arguments, "", {})
        read: dict[str, Any] = json.loads((tmp_path / name / "model_index.json").read_text())
        return read

    assert (index("without")["safety_checker"], index("without")["requires_safety_checker"]) == ([None, None], False)
    for part, files in {"safety_checker": ("config.json",), "feature_extractor": ("preprocessor_config.json",)}.items():
        (source / part).mkdir()
        for file in files:
            (source / part / file).write_text("{}")
    (source / "safety_checker" / "pytorch_model.bin").write_bytes(b"x")
    assert index("pickled")["safety_checker"] == [None, None]
    assert "safety_checker: no safetensors: the model goes without it" in capsys.readouterr().out
    (source / "safety_checker" / "model.safetensors").write_bytes(b"x")
    kept = index("kept")
    assert kept["safety_checker"] == ["stable_diffusion", "StableDiffusionSafetyChecker"]
    assert (kept["feature_extractor"][1], kept["requires_safety_checker"]) == ("CLIPImageProcessor", True)
    files = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*")}
    assert {"safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json"} <= files
    assert "safety_checker/pytorch_model.bin" not in files
    checked_digest(tmp_path / "kept")


def test_the_code_digest_does_not_change_by_itself() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64

"""Starting weights that say something else than the settings are refused before the first step."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.starting_weights import check_starting_weights
from tests.steps.training.tiny_model import write_pretrained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def check(folder: Path, initial: Path | None = None, **settings: Any) -> None:
    settings = {"initial_weights": "pretrained" if initial is None else "model", **settings}
    check_starting_weights(TrainArguments(**settings), initial or folder, folder)


def test_weights_that_agree_with_the_settings_pass(folder: Path, tmp_path: Path) -> None:
    check(folder)
    shutil.copytree(folder, tmp_path / "model")
    check(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("said", "settings", "message"),
    [
        ({"prediction_type": "v_prediction"}, {}, "prediction_type is epsilon, .* says v_prediction: set"),
        ({}, {"prediction_type": "v_prediction"}, "prediction_type is v_prediction, .* says epsilon"),
        (
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            {"prediction_type": "v_prediction"},
            "zero_terminal_snr is false, .* rescale_betas_zero_snr true: set zero_terminal_snr to true",
        ),
        (
            {"prediction_type": "v_prediction"},
            {"prediction_type": "v_prediction", "zero_terminal_snr": True},
            "zero_terminal_snr is true, .* rescale_betas_zero_snr false",
        ),
    ],
)
def test_another_objective_is_refused_with_the_value_to_set_unless_it_is_meant(
    folder: Path, said: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    change(folder / "scheduler/scheduler_config.json", **said)
    with pytest.raises(StepError, match=message):
        check(folder, **settings)
    check(folder, new_objective=True, **settings)
    check(folder, initial_weights="scratch", **settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("addition_embed_type", "text_time"), ("class_embed_type", "timestep"), ("time_cond_proj_dim", 256)],
)
@pytest.mark.parametrize("weights", ["scratch", "pretrained"])
def test_a_unet_with_other_conditions_is_refused_by_the_name_of_the_condition(
    folder: Path, name: str, value: object, weights: str
) -> None:
    change(folder / "unet/config.json", **{name: value})
    with pytest.raises(StepError, match=f"unet/config.json: {name} is {value!r}, .* text and time alone"):
        check(folder, initial_weights=weights)


def test_a_text_encoder_of_another_width_is_refused(folder: Path) -> None:
    change(folder / "text_encoder/config.json", hidden_size=768)
    with pytest.raises(
        StepError, match=r"cross_attention_dim is .* hidden_size 768: they are parts of different models"
    ):
        check(folder)


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("vae/config.json", "scaling_factor", 0.25),
        ("text_encoder/config.json", "num_hidden_layers", 23),
        ("scheduler/scheduler_config.json", "beta_end", 0.5),
    ],
)
def test_a_starting_model_that_was_trained_with_other_parts_is_refused(
    folder: Path, tmp_path: Path, file: str, name: str, value: float
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    change(tmp_path / "model" / file, **{name: value})
    with pytest.raises(StepError, match=f"{Path(file).name}: {name} was {value}"):
        check(folder, tmp_path / "model")

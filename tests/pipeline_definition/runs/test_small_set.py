import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.heldout import is_heldout
from params.settings import Settings
from pipeline_definition.errors import UsageError
from pipeline_definition.runs.small_set import fine_tuning, held_out, merged, side_of, small_set, too_few_held_out


@given(st.lists(st.integers(0, 40).map("caption {}".format), min_size=24, max_size=300))
def test_the_share_that_is_promised_is_held_out_and_both_sides_get_some(captions: list[str]) -> None:
    try:
        fraction, share = held_out(captions)
    except UsageError:
        assert max(map(captions.count, captions)) > len(captions) - 24
        return
    held = sum(is_heldout(caption, fraction) for caption in captions)
    assert held == round(share * len(captions)) and 8 <= held <= len(captions) - 8


def test_pictures_with_one_caption_are_refused() -> None:
    with pytest.raises(UsageError, match="200 usable pictures have 1 different captions"):
        held_out(["my dog"] * 200)


def test_nine_captions_of_two_hundred_photos_leave_most_to_train_on() -> None:
    captions = [f"a photo of {what}, {how}" for what in ("a cat", "coffee", "grass") for how in ("near", "far", "wide")]
    assert 0.1 <= held_out([captions[row % 9] for row in range(200)])[1] <= 0.35


def test_a_fraction_that_holds_out_too_few_is_told_with_one_that_holds_enough() -> None:
    captions = [f"caption {row % 3}" for row in range(90)]
    told = too_few_held_out(captions, 1e-9)
    assert told.startswith("encode.heldout_fraction 1e-09 holds out 0 of 90 pictures; 0.")
    assert too_few_held_out(captions, float(told.split("; ")[1].split(" ")[0])) == ""


@pytest.mark.parametrize("count", [24, 79, 200, 5_000, 100_000, 0])
def test_every_size_is_a_parameter_set_whose_samples_are_there(count: int) -> None:
    captions = [f"caption {row}" for row in range(min(count, 480))]
    settings = Settings.model_validate(small_set(count, captions))
    heldout = int(len(captions) * held_out(captions)[1]) if captions else 64
    assert settings.evaluate.samples >= 2 and settings.train.training_samples % 32 == 0
    if 0 < count <= 480:
        assert max(settings.evaluate.samples, settings.train.validation_samples) <= heldout


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="12 usable pictures; at least 24"):
        small_set(12, ["one", "two"] * 6)


def folder(tmp_path: Path, sample_size: int) -> Path:
    for part, name, config in (
        ("unet", "config.json", {"sample_size": sample_size}),
        ("vae", "config.json", {"block_out_channels": [1, 2, 3, 4]}),
        ("scheduler", "scheduler_config.json", {"prediction_type": "v_prediction"}),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / name).write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(("sample_size", "side_px"), [(8, 64), (64, 256)])
def test_a_pretrained_folder_says_at_which_side_it_draws(tmp_path: Path, sample_size: int, side_px: int) -> None:
    assert side_of(folder(tmp_path, sample_size)) == side_px


def test_a_pretrained_unet_is_fine_tuned_with_its_own_kind_of_prediction(tmp_path: Path) -> None:
    assert fine_tuning(folder(tmp_path, 8)) == {}
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    changes = merged({"train": {"training_samples": 5}}, fine_tuning(tmp_path))
    train = Settings.model_validate(changes).train
    assert (train.initial_weights, train.prediction_type, train.training_samples) == ("pretrained", "v_prediction", 5)
    assert train.learning_rate == 1e-5
    assert merged({"train": {"learning_rate": 1e-3}}, fine_tuning(tmp_path, keeps_rates=True))["train"] == {
        "initial_weights": "pretrained",
        "prediction_type": "v_prediction",
        "learning_rate": 1e-3,
    }


def test_a_folder_without_parts_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unet/config.json cannot be read: .*; `pretrained fetch` makes a folder"):
        side_of(tmp_path)

"""A model that was exported is known, to the bit, wherever it is used."""

from pathlib import Path

import pytest

from steps.errors import StepError
from steps.model.digest import checked_digest, folder_digest, write_checksums


@pytest.fixture(name="model")
def model_fixture(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "model_index.json").write_text("{}")
    write_checksums(tmp_path)
    return tmp_path


def test_a_whole_model_passes_and_has_the_digest_of_its_folder(model: Path) -> None:
    assert checked_digest(model) == folder_digest(model)
    write_checksums(model)
    assert checked_digest(model) == folder_digest(model), "written again, it says the same"


@pytest.mark.parametrize("place", [0, 5000, 10239])
def test_a_flipped_bit_is_found_by_its_file(model: Path, place: int) -> None:
    weights = model / "unet" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[place] ^= 16
    weights.write_bytes(content)
    with pytest.raises(StepError, match=r"unet/weights\.safetensors: damaged"):
        checked_digest(model)


def test_a_file_that_is_cut_or_missing_is_named(model: Path) -> None:
    weights = model / "unet" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StepError, match=r"unet/weights\.safetensors: damaged"):
        checked_digest(model)
    weights.unlink()
    with pytest.raises(StepError, match=r"unet/weights\.safetensors: missing"):
        checked_digest(model)


def test_a_model_of_others_needs_no_checksums(model: Path) -> None:
    (model / "checksums.json").unlink()
    assert checked_digest(model) == folder_digest(model)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_checksums_that_are_none_are_named(model: Path, text: str) -> None:
    (model / "checksums.json").write_text(text)
    with pytest.raises(StepError, match=r"checksums\.json: damaged"):
        checked_digest(model)

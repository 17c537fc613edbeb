import json
import shutil
from pathlib import Path

import pytest

from steps.data.encoding.buckets import Size
from steps.data.encoding.encoder_settings import model_facts
from steps.errors import StepError
from steps.model.digest import folder_digest
from tests.steps.data.shapes_shards import PRETRAINED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("vae", "tokenizer", "text_encoder"):
        shutil.copytree(PRETRAINED / part, tmp_path / part)
    return tmp_path


def test_sizes_come_from_the_configurations(folder: Path) -> None:
    facts = model_facts(folder)
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert facts.latent_shape(Size(64, 64)) == (4, 8, 8)
    assert facts.latent_shape(Size(32, 128)) == (4, 4, 16)
    assert (facts.caption_length, facts.embedding_width) == (16, 64)
    assert facts.scaling_factor == config["scaling_factor"]
    digests = [folder_digest(folder / part) for part in ("vae", "tokenizer", "text_encoder")]
    assert [facts.encoder_digest, facts.tokenizer_digest, facts.text_encoder_digest] == digests


def test_a_missing_configuration_is_named(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(StepError, match=r"vae/config\.json: cannot be read"):
        model_facts(folder)


def test_a_missing_key_is_named(folder: Path) -> None:
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]
    path.write_text(json.dumps(config))
    with pytest.raises(StepError, match="lacks or garbles 'scaling_factor'"):
        model_facts(folder)


def test_a_resolution_that_the_vae_cannot_halve_is_refused(folder: Path) -> None:
    with pytest.raises(StepError, match=r"64 x 60 px: .* multiples of the VAE's factor 8; change resolution_px"):
        model_facts(folder).latent_shape(Size(60, 64))

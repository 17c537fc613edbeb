"""Only a training that would end with the same weights goes on with another's checkpoints."""

import json
import shutil
import typing
from pathlib import Path

import pytest

from params.programs import TrainArguments
from steps.errors import StepError
from steps.training.identity import WITHOUT_EFFECT, identity_digest, training_identity

ARGUMENTS = TrainArguments(precision="float32")


def another_value(name: str) -> object:
    value, annotation = getattr(ARGUMENTS, name), TrainArguments.model_fields[name].annotation
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next((option for option in typing.get_args(annotation) if option != value), "another")
    if isinstance(value, tuple):
        return (*value, value[-1] if value else 1)
    return value + 1 if isinstance(value, int) else 0.5 + value / 3


def digest(pretrained: Path, latents: Path, **changes: object) -> str:
    return identity_digest(training_identity(ARGUMENTS.model_copy(update=changes), pretrained, pretrained, latents))


def test_how_fast_and_how_watched_does_not_matter(pretrained: Path, latents: Path) -> None:
    reference = digest(pretrained, latents)
    assert set(TrainArguments.model_fields) >= WITHOUT_EFFECT
    for name in WITHOUT_EFFECT:
        assert digest(pretrained, latents, **{name: another_value(name)}) == reference, name


def test_everything_else_does(pretrained: Path, latents: Path) -> None:
    reference = digest(pretrained, latents)
    for name in set(TrainArguments.model_fields) - WITHOUT_EFFECT:
        assert digest(pretrained, latents, **{name: another_value(name)}) != reference, name


def test_so_do_data_and_model(pretrained: Path, latents: Path, tmp_path: Path) -> None:
    digests = {digest(pretrained, latents)}
    other = tmp_path / "latents"
    shutil.copytree(latents, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"source_manifest_digest": "1" * 64}))
    digests.add(digest(pretrained, other))
    model = tmp_path / "pretrained"
    shutil.copytree(pretrained, model)
    config = json.loads((model / "unet" / "config.json").read_text())
    (model / "unet" / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
    digests.add(digest(model, latents))
    assert len(digests) == 3


def test_latents_of_another_encoder_are_refused(pretrained: Path, latents: Path, tmp_path: Path) -> None:
    model = tmp_path / "pretrained"
    shutil.copytree(pretrained, model)
    (model / "vae" / "config.json").write_text((model / "vae" / "config.json").read_text() + " ")
    with pytest.raises(StepError, match="made by another encoder"):
        digest(model, latents)

"""What a training is assembled from has to fit together."""

import shutil
from pathlib import Path

import pytest

from params.programs import TrainArguments
from steps.data.latents.latents_manifest import LatentsManifest
from steps.errors import StepError
from steps.training.assembly import assemble
from steps.training.identity import training_identity
from steps.training.optimizer_step import batch_plan
from tests.steps.training.test_validation import HEAD


def test_written_captions_of_latents_that_have_none_are_refused_with_the_key(
    pretrained: Path, latents: Path, tmp_path: Path
) -> None:
    asked, plan = TrainArguments(written_captions=0.5, precision="float32", micro_batch_size=8), batch_plan(8, 8, 1)
    with pytest.raises(StepError, match=r"train\.written_captions: .* has none; add a `recaption:` section"):
        assemble(asked, plan, HEAD, latents, pretrained, pretrained)
    both = shutil.copytree(latents, tmp_path / "both")
    manifest = LatentsManifest.model_validate_json((both / "manifest.json").read_bytes())
    made = manifest.model_copy(update={"captions_manifest_digest": "c" * 64})
    (both / "manifest.json").write_text(made.model_dump_json())
    assemble(asked, plan, HEAD, both, pretrained, pretrained)
    plain = training_identity(TrainArguments(), pretrained, pretrained, latents)
    assert "written_captions" not in plain["settings"], "a training that takes none keeps its identity"

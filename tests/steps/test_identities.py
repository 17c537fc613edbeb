"""What release 0.1.0 made stays valid: the digests of its artifacts never move.

identities_0.1.0.json holds, for each program and parameter set, the settings that decide its artifact and their digest,
and the digests of whole identities with fixed inputs, as that release computed them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from params.model import Decides, Model
from params.programs import DRAWING, DownloadArguments, EncodeArguments, EvaluateArguments, TrainArguments
from params.settings import Settings, load_settings
from steps.artifact import digest, to_text
from steps.data.collecting import release_0_1
from steps.data.collecting.collection import Collection
from steps.data.latents.latents_manifest import LatentsManifest, LatentsShard
from steps.data.shards.shards_artifact import ShardsManifest, VerifiedShard, make_ledger
from steps.encode import Encode
from steps.evaluation import generation as planning
from steps.evaluation.captions import Prompt
from steps.evaluation.generation import PRETRAINED, TRAINED, ModelSource
from steps.model.digest import folder_digest
from steps.training.identity import identity_digest, training_identity

ROOT = Path(__file__).parents[2]
GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("identities_0.1.0.json").read_text())
PROGRAMS: dict[str, type[Model]] = {
    "download": DownloadArguments,
    "encode": EncodeArguments,
    "evaluate": EvaluateArguments,
    "train": TrainArguments,
}


# These sets name no way of drawing for Evaluate: 0.1.0 drew as MLPerf does, and now the endpoint's way is judged. Asked
# for by name, 0.1.0's pictures are still valid.
JUDGED_AS_SERVED = ("defaults", "octank_100gb", "sd2_base", "sd2_heterogeneous")
AS_IN_0_1_0 = EvaluateArguments().model_dump(include=set(DRAWING))


def settings_of(parameter_set: str, step: str) -> dict[str, Any]:
    path = ROOT / "params" / f"{parameter_set}.yaml"
    settings = Settings() if parameter_set == "defaults" else load_settings(path)
    evaluate = settings.evaluate.model_copy(update=AS_IN_0_1_0 if parameter_set in JUDGED_AS_SERVED else {})
    steps: dict[str, Model] = {"download": settings.download, "evaluate": evaluate}
    for phase in settings.phases:
        steps |= {phase.encode_name.lower(): phase.encode, phase.train_name.lower(): phase.train}
    program = PROGRAMS[step.removesuffix("phase2")]
    if program is DownloadArguments:
        return steps[step].deciding(release_0_1.SETTINGS)
    decided = (Decides.CONTENT, Decides.EXTENT) if program is TrainArguments else (Decides.CONTENT,)
    return steps[step].deciding(program.names(*decided))


@pytest.mark.parametrize(
    ("parameter_set", "step"), [(name, step) for name, of in GOLDEN["settings"].items() for step in of]
)
def test_settings_that_decided_an_artifact_decide_the_same(parameter_set: str, step: str) -> None:
    golden, now = GOLDEN["settings"][parameter_set][step], settings_of(parameter_set, step)
    moved = [name for name in {**golden["settings"], **now} if golden["settings"].get(name) != now.get(name)]
    assert not moved, (
        f"{step} of {parameter_set}: {', '.join(moved)} moved the digest, so that users make their data anew; a field "
        "that came later names its Neutral value, one that was there at first keeps its declaration (params/model.py)"
    )
    assert digest(now) == golden["digest"]


def write_pretrained(folder: Path) -> Path:
    files = {
        "vae/config.json": {"block_out_channels": [8, 8, 8, 8], "scaling_factor": 0.18215, "latent_channels": 4},
        "tokenizer/vocab.json": {"red": 0},
        "text_encoder/config.json": {"max_position_embeddings": 77, "hidden_size": 32},
        "unet/config.json": {"sample_size": 8},
        "scheduler/scheduler_config.json": {"num_train_timesteps": 1000},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def shards_manifest() -> bytes:
    shard = VerifiedShard(
        name="00000.tar", rows=2, samples=1, bytes=10240, sha256="1" * 64, failed={"http_404": 1}
    )  # fmt: skip
    manifest = ShardsManifest(
        plan_digest="2" * 64,
        table_digest="3" * 64,
        image_size_px=256,
        resize_mode="center_crop",
        ledger=make_ledger([shard], {"http_404": 1}, 2, 2),
        shards=(shard,),
    )
    return manifest.model_dump_json(indent=1).encode()


def latents_manifest(pretrained: Path) -> bytes:
    manifest = LatentsManifest(
        plan_digest="4" * 64,
        encoder_digest=folder_digest(pretrained / "vae"),
        tokenizer_digest=folder_digest(pretrained / "tokenizer"),
        text_encoder_digest=folder_digest(pretrained / "text_encoder"),
        source_manifest_digest="5" * 64,
        resolution_px=256,
        latent_shape=(4, 32, 32),
        scaling_factor=0.18215,
        caption_length=77,
        caption_embeddings=False,
        embedding_width=32,
        precision="float32",
        rows_per_block=256,
        counts={"train": 1, "heldout": 0},
        dropped_heldout_samples=0,
        latents_mean=0.0,
        latents_std=5.5,
        channel_means=(0.0,) * 4,
        channel_stds=(5.5,) * 4,
        decoded_psnr_db=30.0,
        shards=(LatentsShard(name="train-00000.tar", split="train", rows=1, bytes=10240, sha256="6" * 64),),
    )
    return manifest.model_dump_json(indent=1).encode()


def test_the_shards_of_a_table_keep_their_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_0_1, "version", lambda name: "1.47.0")
    table = tmp_path / "table.csv"
    table.write_text(
        "url,caption\nhttps://pictures.example/1.jpg,a red square\nhttps://pictures.example/2.jpg,a blue one\n"
    )
    arguments = DownloadArguments(url_table=str(table), shards_uri=str(tmp_path), dedup="perceptual", top_up=1)
    collection = Collection(arguments)
    assert collection._former_digest == GOLDEN["whole"]["shards"]
    assert collection.artifact.former_digest == GOLDEN["whole"]["download"]


def test_the_latents_of_shards_keep_their_identity(tmp_path: Path) -> None:
    manifest, uri = tmp_path / "manifest.json", str(tmp_path)
    manifest.write_bytes(shards_manifest())
    arguments = EncodeArguments(shards_uri=uri, latents_uri=uri, reference_uri=uri)
    encode = Encode(arguments, manifest, write_pretrained(tmp_path / "pretrained"))
    assert encode.latents.digest == encode.reference.digest == GOLDEN["whole"]["encode"]


def test_a_training_keeps_its_identity(tmp_path: Path) -> None:
    pretrained = write_pretrained(tmp_path / "pretrained")
    (tmp_path / "manifest.json").write_bytes(latents_manifest(pretrained))
    identity = training_identity(TrainArguments(), pretrained, pretrained, tmp_path)
    assert identity_digest(identity) == GOLDEN["whole"]["train"]


def test_manifests_that_later_steps_identify_by_their_bytes_keep_them(tmp_path: Path) -> None:
    assert hashlib.sha256(shards_manifest()).hexdigest() == GOLDEN["whole"]["shards manifest"], (
        "all latents would be made anew"
    )
    manifest = latents_manifest(write_pretrained(tmp_path / "pretrained"))
    assert hashlib.sha256(manifest).hexdigest() == GOLDEN["whole"]["latents manifest"], (
        "all trainings would begin at sample 0"
    )


def test_the_pictures_of_a_model_keep_their_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "versions", lambda: {"torch": "2.13.0"})
    arguments = EvaluateArguments(
        samples=5, batch_size=2, guidance_grid=(3.0,), samples_uri="s3://b/samples", pretrained_size_px=512
    )
    sources = {TRAINED: ModelSource(tmp_path, "7" * 64), PRETRAINED: ModelSource(tmp_path, "8" * 64)}
    prompts = tuple(Prompt(number, "a red square", number, number) for number in range(5))
    work = planning.plan(arguments, sources, prompts, "9" * 64, 256, (tmp_path / "a", tmp_path / "b"))
    assert [row.name for row in work.rows] == ["trained", "guidance-3", "untrained", "pretrained"]
    for row in work.rows:
        assert row.mirror == f"s3://b/samples/{GOLDEN['whole'][f'pictures {row.name}']}", row.generation
        assert digest(to_text(row.generation)) == GOLDEN["whole"][f"generation {row.name}"], "generation.json"

"""Encoding on a real Ray cluster of this machine, to a real S3 server, with the local world's models."""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch

from params.arguments import to_flags
from params.heldout import is_heldout
from params.layout import DESCRIPTORS, LATENTS, REFERENCE
from params.programs import EncodeArguments
from steps.artifact import IDENTITY_FILE, publish
from steps.container import Cluster
from steps.data.encoding import ray_encoding
from steps.data.encoding.buckets import Size
from steps.data.encoding.decoding import decode
from steps.data.encoding.descriptors import DescriptorsManifest, read_descriptors
from steps.data.encoding.patch_features import PatchFeatures
from steps.data.encoding.samples import read_samples, read_table
from steps.data.loading.latents import LatentsDataset
from steps.data.storage import Storage
from steps.encode import Encode
from steps.errors import StepError
from steps.evaluation.reference import Reference
from steps.model.pretrained import folder_digest, load_tokenizer, load_vae
from steps.ray_cluster import leading
from tests.processes import outlive
from tests.steps.data import s3_server
from tests.steps.data.shapes_shards import PRETRAINED, write_shards

# Ray warns of its own code.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:::ray")]

FRACTION = 0.2


@dataclass
class World:
    s3: s3_server.S3
    folder: Path

    def arguments(self, name: str, **settings: object) -> EncodeArguments:
        base = f"s3://{s3_server.BUCKET}"
        values = {
            "resolution_px": 64,
            "batch_size": 16,
            "rows_per_block": 16,
            "rows_per_shard": 64,
            "heldout_fraction": FRACTION,
            "workers": 1,
            "shards_uri": f"{base}/shards",
            "latents_uri": f"{base}/{name}/latents",
            "reference_uri": f"{base}/{name}/reference",
        }
        return EncodeArguments.model_validate(values | settings)

    def encode(self, name: str, **settings: object) -> Encode:
        return Encode(self.arguments(name, **settings), self.folder / "manifest.json", PRETRAINED)

    def objects(self, name: str) -> dict[str, bytes]:
        return {key: self.s3.read(f"{name}/{key}") for key in self.s3.names(name) if key.endswith(".tar")}

    def fetch(self, name: str, artifacts: dict[str, dict[str, bytes]]) -> Path:
        """Bring an artifact to a folder, as SageMaker's upload and a file system's import would."""
        for part in (LATENTS, REFERENCE):
            parts = {key: self.s3.read(f"{name}/{part}/{key}") for key in self.s3.names(f"{name}/{part}")}
            publish(self.folder / name / part, parts | artifacts[part])
        return self.folder / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("encode")
    with s3_server.serving() as s3:
        manifest = write_shards(f"s3://{s3_server.BUCKET}/shards", [90, 70, 40])
        (folder / "manifest.json").write_text(manifest.model_dump_json())
        with leading(Cluster(("localhost",), "localhost", "localhost", 1, 2), "test", 60):
            yield World(s3, folder)


@pytest.fixture(scope="module")
def encoded(world: World) -> Path:
    return world.fetch("first", world.encode("first").run())


def captions(world: World) -> list[str]:
    storage = Storage(f"s3://{s3_server.BUCKET}/shards")
    return [text for index in range(3) for text in read_table(storage, f"{index:05d}.tar").captions]


def test_every_sample_is_encoded_once_in_its_split(world: World, encoded: Path) -> None:
    dataset = LatentsDataset(encoded / LATENTS)
    texts = captions(world)
    expected = {
        "train": [text for text in texts if not is_heldout(text, FRACTION)],
        "heldout": [text for text in texts if is_heldout(text, FRACTION)],
    }
    tokenizer = load_tokenizer(PRETRAINED)
    for split, wanted in expected.items():
        assert dataset.count(split) == len(wanted)
        found = dataset.read(split, np.arange(len(wanted))).token_ids
        ids = tokenizer(wanted, padding="max_length", max_length=16, truncation=True, return_tensors="pt")["input_ids"]
        assert torch.equal(found, ids.to(torch.int32))


def test_the_manifest_is_the_contract_with_training(world: World, encoded: Path) -> None:
    manifest = LatentsDataset(encoded / LATENTS).manifest
    config = json.loads((PRETRAINED / "vae" / "config.json").read_text())
    assert manifest.encoder_digest == folder_digest(PRETRAINED / "vae")
    assert manifest.tokenizer_digest == folder_digest(PRETRAINED / "tokenizer")
    assert manifest.text_encoder_digest == folder_digest(PRETRAINED / "text_encoder")
    assert manifest.source_manifest_digest == hashlib.sha256((world.folder / "manifest.json").read_bytes()).hexdigest()
    assert (manifest.resolution_px, manifest.latent_shape, manifest.caption_length) == (64, (4, 8, 8), 16)
    assert manifest.scaling_factor == config["scaling_factor"]
    assert 0.8 < manifest.latents_std * manifest.scaling_factor < 1.2
    assert manifest.decoded_psnr_db > 25
    for shard in manifest.shards:
        content = (encoded / LATENTS / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_latents_decode_to_the_pictures_of_their_captions(encoded: Path) -> None:
    dataset, reference = LatentsDataset(encoded / LATENTS), Reference(encoded / REFERENCE)
    mean = dataset.read("heldout", np.arange(8)).mean.float()
    with torch.inference_mode():
        decoded = load_vae(PRETRAINED, torch.float32).decode(mean).sample
    pictures = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures - reference.read(range(8))).mean() < 8


def test_the_reference_holds_the_held_out_pictures(world: World, encoded: Path) -> None:
    reference = Reference(encoded / REFERENCE)
    assert reference.captions == [text for text in captions(world) if is_heldout(text, FRACTION)]
    assert reference.size_px == 64


def encoders() -> list[psutil.Process]:
    """Return the encoders of this process's cluster: others may run on this machine."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::Encoder" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_an_encoder_stays_up_from_the_first_shard_to_the_last(
    world: World, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = set(encoders()), list[set[psutil.Process]]()
    encode_shards = ray_encoding.encode_shards
    monkeypatch.setattr(
        "steps.encode.encode_shards",
        lambda job, missing, _: encode_shards(job, missing, lambda rows: seen.append(set(encoders()) - before)),
    )
    artifacts = world.encode("steady", rows_per_shard=16).run()
    assert pa.ipc.open_file(artifacts[LATENTS]["index.arrow"]).read_all().num_rows == len(seen) > 12
    assert len(seen[0]) == 1 and all(one == seen[0] for one in seen)


def test_neither_workers_nor_a_killed_one_change_a_byte(
    world: World, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill_a_worker(rows: int) -> None:
        for process in () if killed else encoders():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.append(process.pid)
                break

    encode_shards = ray_encoding.encode_shards
    monkeypatch.setattr(
        "steps.encode.encode_shards", lambda job, missing, _: encode_shards(job, missing, kill_a_worker)
    )
    artifacts = world.encode("second", workers=2).run()
    assert killed
    assert world.objects("second") == world.objects("first")
    for part in (LATENTS, REFERENCE):
        for file, content in artifacts[part].items():
            assert content == (encoded / part / file).read_bytes()


def test_a_job_started_again_makes_only_the_missing_shards(
    world: World, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    encode_shards = ray_encoding.encode_shards
    client, bucket = world.s3.client, s3_server.BUCKET
    # Earlier releases had the records beside their shards.
    for key in world.s3.names("first/latents/records"):
        content = world.s3.read(f"first/latents/records/{key}")
        client.put_object(Bucket=bucket, Key=f"first/latents/{key}", Body=content)
        client.delete_object(Bucket=bucket, Key=f"first/latents/records/{key}")
    for key in ("train-00001.tar", "train-00002.verified.json"):
        client.delete_object(Bucket=bucket, Key=f"first/latents/{key}")
    client.put_object(Bucket=bucket, Key="first/latents/manifest.json", Body=b'{"plan_digest": "of an older encoding"}')

    def recorded(job: ray_encoding.EncodeJob, missing: list[ray_encoding.PlannedShard], on_rows: object) -> object:
        made.extend(shard.name for shard in missing)
        return encode_shards(job, missing, on_rows)  # type: ignore[arg-type]

    monkeypatch.setattr("steps.encode.encode_shards", recorded)
    encode = world.encode("first")
    assert encode.published() is None
    artifacts = encode.run()
    assert made == ["train-00001.tar", "train-00002.tar"]
    assert "manifest.json" not in world.s3.names("first/latents")
    assert artifacts[LATENTS]["manifest.json"] == (encoded / LATENTS / "manifest.json").read_bytes()


def test_a_finished_encoding_is_not_done_again(world: World, encoded: Path) -> None:
    for part in (LATENTS, REFERENCE):
        for path in (path for path in (encoded / part).iterdir() if path.suffix in (".json", ".arrow")):
            world.s3.client.put_object(Bucket=s3_server.BUCKET, Key=f"first/{part}/{path.name}", Body=path.read_bytes())
    published = world.encode("first").published()
    assert published is not None
    assert published[LATENTS]["manifest.json"] == (encoded / LATENTS / "manifest.json").read_bytes()
    assert world.encode("first", precision="bfloat16").published() is None


def test_latents_that_were_refused_are_refused_at_the_next_start_too(
    world: World, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.data.encoding.latents_artifact.MIN_PSNR_DB", 99.0)
    for _ in range(2):
        with pytest.raises(StepError, match=r"train-0000[0-9]\.tar decode to other pictures .* Likely causes"):
            world.encode("refused").run()


def test_what_a_worker_finds_wrong_ends_the_step_in_its_words(world: World, tmp_path: Path) -> None:
    uri = f"s3://{s3_server.BUCKET}/damaged"
    manifest = write_shards(uri, [30])
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    world.s3.client.delete_object(Bucket=s3_server.BUCKET, Key="damaged/00000.tar")
    with pytest.raises(StepError, match=r"damaged/00000\.tar: not the shard that was verified .* download again"):
        Encode(world.arguments("lost", shards_uri=uri), tmp_path / "manifest.json", PRETRAINED).run()
    world.s3.client.delete_object(Bucket=s3_server.BUCKET, Key="damaged/00000.samples.parquet")
    with pytest.raises(StepError, match=r"00000\.samples\.parquet: not there"):
        Encode(world.arguments("lost", shards_uri=uri), tmp_path / "manifest.json", PRETRAINED).run()


def test_pictures_of_many_shapes_are_encoded_in_buckets(world: World, tmp_path: Path) -> None:
    uri, ratios = f"s3://{s3_server.BUCKET}/wide", (1.0, 1.7, 3.5, 0.6)
    manifest = write_shards(uri, [40, 30], ratios=ratios)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    settings = {"shards_uri": uri, "max_bucket_ratio": 4.0, "bucket_step_px": 16, "min_bucket_samples": 8}
    evaluator, with_features = PRETRAINED.with_name("evaluator"), {"features": "clip", "features_side": 2}
    descriptors = {"descriptors": "clip", "descriptors_uri": f"s3://{s3_server.BUCKET}/wide/descriptors"}
    arguments = world.arguments("wide", **settings, **with_features, **descriptors)
    artifacts = Encode(arguments, tmp_path / "manifest.json", PRETRAINED, evaluator).run()
    dataset = LatentsDataset(world.fetch("wide", artifacts) / LATENTS)
    # No picture is nearly as tall as the tallest shape.
    assert [bucket.size_px for bucket in dataset.manifest.buckets] == [(80, 48), (64, 64), (48, 80), (32, 128)]
    assert dataset.manifest.latent_shapes == ((4, 10, 6), (4, 8, 8), (4, 6, 10), (4, 4, 16))
    assert dataset.manifest.features_shape == (2, 2, 128)
    described = DescriptorsManifest.model_validate_json(artifacts[DESCRIPTORS]["manifest.json"])
    assert described.samples == dataset.count("train") == sum(file.rows for file in described.files)
    found_descriptors = [read_descriptors(Storage(descriptors["descriptors_uri"]), file) for file in described.files]
    tables = [read_table(Storage(uri), f"{index:05d}.tar") for index in range(2)]
    tokenizer, vae = load_tokenizer(PRETRAINED), load_vae(PRETRAINED, torch.float32)
    for bucket, ratio in enumerate((0.6, 1.0, 1.7, 3.5)):
        for split in ("train", "heldout"):
            rows = [(table, row) for table in tables for row in range(len(table.keys)) if ratios[row % 4] == ratio]
            own = [(t, row) for t, row in rows if is_heldout(t.captions[row], FRACTION) == (split == "heldout")]
            span = dataset.spans(split)[bucket]
            found = dataset.read(split, np.arange(span.start, span.stop))
            texts = [table.captions[row] for table, row in own]
            tokens = tokenizer(texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
            assert torch.equal(found.token_ids, tokens["input_ids"].to(torch.int32))
            assert found.features is not None and found.features.shape == (len(own), 2, 2, 128)
            with torch.inference_mode():
                decoded = ((vae.decode(found.mean[:1].float()).sample / 2 + 0.5).clamp(0, 1) * 255)[0]
            picture = next(read_samples(Storage(uri), own[0][0], np.array([own[0][1]])))
            wanted = decode(picture, Size(*dataset.manifest.buckets[bucket].size_px))
            assert np.abs(decoded.permute(1, 2, 0).numpy() - wanted).mean() < 12
            if split == "train":
                # Descriptors are of the picture's middle, in the order of the latents.
                describer = PatchFeatures(evaluator / "clip", 1, torch.device("cpu"))
                row = np.concatenate(found_descriptors)[span.start]
                np.testing.assert_allclose(row, describer.describe(wanted[None])[0].numpy(), atol=2e-3)


def test_squares_are_not_put_into_buckets(world: World) -> None:
    with pytest.raises(StepError, match=r"max_bucket_ratio: .* as squares; download with resize_mode keep_ratio"):
        world.encode("squares", max_bucket_ratio=2.0)


def test_a_missing_manifest_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="the manifest that download writes is needed"):
        Encode(world.arguments("none"), tmp_path / "manifest.json", PRETRAINED)


def test_pictures_are_never_blown_up_to_a_resolution(world: World) -> None:
    with pytest.raises(StepError, match="resolution_px: 128 px would be blown up from pictures of 64 px"):
        world.encode("large", resolution_px=128)


@dataclass
class Job:
    """The program as a job of its own, writing under a prefix of its name."""

    world: World
    name: str

    def __post_init__(self) -> None:
        inputs = self.world.folder / self.name / "processing" / "input"
        (inputs / "shards").mkdir(parents=True)
        (inputs / "shards" / "manifest.json").write_bytes((self.world.folder / "manifest.json").read_bytes())
        (inputs / "pretrained").symlink_to(PRETRAINED)

    def start(self) -> subprocess.Popen[str]:
        arguments = to_flags(self.world.arguments(self.name).model_dump())
        return subprocess.Popen(
            [sys.executable, "-m", "steps", "encode", *arguments],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(self.world.folder / self.name)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> None:
        with self.start() as process:
            _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors

    def assert_equals(self, encoded: Path) -> None:
        """Every byte of the artifacts is that of an unbroken run."""
        assert self.world.objects(self.name) == self.world.objects("first")
        for part in (LATENTS, REFERENCE):
            written = list((self.world.folder / self.name / "processing" / "output" / part).iterdir())
            files = {
                path.name
                for path in (encoded / part).iterdir()
                if path.suffix in (".json", ".arrow")
                if ".verified" not in path.name and path.name != IDENTITY_FILE
            }
            assert {path.name for path in written} == files
            for path in written:
                assert path.read_bytes() == (encoded / part / path.name).read_bytes()


def kill_container(process: subprocess.Popen[str]) -> int:
    """Kill a job as its container ends, with all that is in it; return how many processes that were."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate(timeout=60)
        assert not outlive(family, 60)
        return len(family)
    return 0


def test_the_program_killed_and_started_again_ends_with_the_same_bytes(world: World, encoded: Path) -> None:
    job = Job(world, "job")
    with job.start() as process:
        deadline_s = time.monotonic() + 200
        while "records/train-00000.verified.json" not in world.s3.names("job/latents"):
            assert process.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.05)
        assert kill_container(process) > 1
    job.finish()
    job.assert_equals(encoded)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_run_killed_ten_times_at_random_ends_with_the_same_manifest_and_bytes(world: World, encoded: Path) -> None:
    numbers = random.Random(0)
    unbroken, job = Job(world, "unbroken"), Job(world, "chaos")
    started_s = time.monotonic()
    unbroken.finish()
    unbroken.assert_equals(encoded)
    duration_s = time.monotonic() - started_s
    kills = 0
    while kills < 10:
        with job.start() as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(numbers.uniform(0.2, 1.0) * duration_s)
            if process.poll() is None:
                kills += kill_container(process) > 0
                continue
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""
        # It was quicker than the kill: it begins anew, from nothing.
        job.assert_equals(encoded)
        for key in world.s3.names("chaos"):
            world.s3.client.delete_object(Bucket=s3_server.BUCKET, Key=f"chaos/{key}")
    job.finish()
    job.assert_equals(encoded)

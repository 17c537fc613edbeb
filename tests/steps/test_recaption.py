"""Captioning on a real Ray cluster of this machine, to a real S3 server, with the captioner of the local world."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from params.heldout import is_heldout
from params.layout import LATENTS
from params.programs import EncodeArguments, RecaptionArguments
from shapes import captions
from steps import recaption
from steps.container import Cluster
from steps.data.encoding.samples import read_table
from steps.data.encoding.written_captions import CaptionsManifest
from steps.data.loading.latents import LatentsDataset
from steps.data.shards.shards_artifact import ShardsManifest, VerifiedShard
from steps.data.storage import Storage
from steps.encode import Encode
from steps.errors import StepError
from steps.model.pretrained import load_tokenizer
from steps.ray_cluster import leading
from steps.recaption import Recaption
from tests.shapes.stored import long_text
from tests.steps.data import s3_server
from tests.steps.data.encoding.test_captioner import CAPTIONER
from tests.steps.data.shapes_shards import PRETRAINED, write_shards

# Ray warns of its own code.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore:::ray")]

BASE = f"s3://{s3_server.BUCKET}"
SHARDS = f"{BASE}/shards"
FRACTION = 0.2


@dataclass
class World:
    s3: s3_server.S3
    folder: Path
    shards: ShardsManifest

    def manifest(self, shards: ShardsManifest, name: str = "manifest.json") -> Path:
        path = self.folder / name
        path.write_text(shards.model_dump_json())
        return path

    def recaption(self, name: str, shards: ShardsManifest | None = None, **settings: object) -> Recaption:
        values = {"prompt": "none", "max_caption_tokens": 47, "batch_size": 16, "precision": "float32", "workers": 1}
        place = {"shards_uri": SHARDS, "captions_uri": f"{BASE}/{name}"}
        arguments = RecaptionArguments.model_validate(values | place | settings)
        return Recaption(arguments, self.manifest(shards or self.shards), CAPTIONER)

    def objects(self, name: str) -> dict[str, bytes]:
        return {key: self.s3.read(f"{name}/{key}") for key in self.s3.names(name) if key.endswith(".parquet")}

    def written(self, name: str) -> dict[str, str]:
        """Every caption by its sample's key."""
        tables = [pq.read_table(io.BytesIO(content)) for _, content in sorted(self.objects(name).items())]
        return {row["key"]: row["caption"] for table in tables for row in table.to_pylist()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with s3_server.serving() as s3, leading(Cluster(("localhost",), "localhost", "localhost", 1, 2), "test", 60):
        yield World(s3, tmp_path_factory.mktemp("recaption"), write_shards(SHARDS, [90, 70, 40]))


@pytest.fixture(scope="module")
def finished(world: World) -> CaptionsManifest:
    """The captions under `first`, whole."""
    manifest = CaptionsManifest.model_validate_json(world.recaption("first").run()["manifest.json"])
    world.s3.client.put_object(
        Bucket=s3_server.BUCKET, Key="first/manifest.json", Body=manifest.model_dump_json(indent=1).encode()
    )
    return manifest


def originals() -> dict[str, str]:
    tables = [read_table(Storage(SHARDS), f"{index:05d}.tar") for index in range(3)]
    return {key: text for table in tables for key, text in zip(table.keys, table.captions, strict=True)}


def test_each_sample_gets_the_caption_of_its_picture_and_the_shards_stay_as_they_are(
    world: World, finished: CaptionsManifest
) -> None:
    before = {name: world.s3.read(f"shards/{name}") for name in world.s3.names("shards")}
    texts, written = originals(), world.written("first")
    assert sorted(written) == sorted(texts) and len(texts) == 200
    right = sum(written[key] == long_text(captions.parse(text)) for key, text in texts.items())
    assert right >= 0.9 * len(texts)
    assert finished.written + finished.failed == 200
    world.recaption("again").run()
    assert world.objects("again") == world.objects("first")
    assert {name: world.s3.read(f"shards/{name}") for name in world.s3.names("shards")} == before


def test_a_captioning_that_was_killed_writes_only_what_is_missing(
    world: World, finished: CaptionsManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    write = recaption.write_captions

    def killed_after(shards: int) -> None:
        def part(uri: str, plan_digest: str, shard: VerifiedShard, captions: dict[str, str]) -> object:
            if len(made) == shards:
                raise KeyboardInterrupt
            made.append(shard.name)
            return write(uri, plan_digest, shard, captions)

        monkeypatch.setattr(recaption, "write_captions", part)

    killed_after(2)
    with pytest.raises(KeyboardInterrupt):
        world.recaption("killed").run()
    assert "manifest.json" not in world.s3.names("killed")
    # A parquet without its record was never whole.
    world.s3.client.delete_object(Bucket=s3_server.BUCKET, Key="killed/00001.captions.parquet.verified.json")
    killed_after(9)
    content = world.recaption("killed").run()["manifest.json"]
    assert made == ["00000.tar", "00001.tar", "00001.tar", "00002.tar"], "with one captioner, in order"
    assert world.objects("killed") == world.objects("first")
    assert content == world.s3.read("first/manifest.json")
    # Done again, nothing is; with another setting all is; in another set, shards whose samples are others.
    assert world.recaption("first").captions.published() is not None
    assert world.recaption("first", max_caption_tokens=20).captions.published() is None
    made.clear()
    first, second, third = world.shards.shards
    marked = second.model_copy(update={"samples": 71})
    with pytest.raises(StepError, match=r"00001\.tar has fewer samples than the manifest says"):
        world.recaption("killed", world.shards.model_copy(update={"shards": (first, marked, third)})).run()
    assert made == []
    assert (
        world.recaption("killed", world.shards.model_copy(update={"shards": (first, third)})).captions.published()
        is None
    )
    world.recaption("killed", world.shards.model_copy(update={"shards": (first, third)})).run()
    assert made == []


def test_what_has_no_caption_is_counted(world: World) -> None:
    manifest = CaptionsManifest.model_validate_json(world.recaption("cut", max_caption_tokens=9).run()["manifest.json"])
    assert (manifest.written, manifest.failed) == (0, 200)
    assert set(world.written("cut").values()) == {""}


def encode(world: World, name: str, captions_uri: str = "", captions_dir: Path = Path()) -> LatentsDataset:
    arguments = EncodeArguments(
        resolution_px=64,
        batch_size=16,
        rows_per_block=16,
        rows_per_shard=64,
        heldout_fraction=FRACTION,
        workers=1,
        shards_uri=SHARDS,
        latents_uri=f"{BASE}/{name}/latents",
        reference_uri=f"{BASE}/{name}/reference",
        captions_uri=captions_uri,
    )
    files = Encode(arguments, world.manifest(world.shards), PRETRAINED, captions=captions_dir).run()[LATENTS]
    folder = world.folder / name
    (folder / "records").mkdir(parents=True)
    for key in world.s3.names(f"{name}/latents"):
        (folder / key).write_bytes(world.s3.read(f"{name}/latents/{key}"))
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return LatentsDataset(folder)


def test_encode_stores_the_token_ids_of_both_captions_and_a_failed_one_is_the_original_again(
    world: World, finished: CaptionsManifest
) -> None:
    folder = world.folder / "captions"
    folder.mkdir()
    # One shard's captions with two that failed.
    for name, content in world.objects("first").items():
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        if name.startswith("00001"):
            rows[3]["caption"] = rows[60]["caption"] = ""
        buffer = io.BytesIO()
        table = pq.read_table(io.BytesIO(content)).from_pylist(rows)
        pq.write_table(table, buffer)
        world.s3.client.put_object(Bucket=s3_server.BUCKET, Key=f"two-failed/{name}", Body=buffer.getvalue())
    (folder / "manifest.json").write_text(finished.model_dump_json())
    plain = encode(world, "plain")
    both = encode(world, "both", f"{BASE}/two-failed", folder)
    texts, written = originals(), world.written("two-failed")
    kept = [key for key, text in texts.items() if not is_heldout(text, FRACTION)]
    wanted = [written[key] or texts[key] for key in kept]
    tokenizer = load_tokenizer(PRETRAINED)
    ids = tokenizer(wanted, padding="max_length", max_length=16, truncation=True, return_tensors="np")["input_ids"]
    found, before = both.read("train", np.arange(len(kept))), plain.read("train", np.arange(len(kept)))
    assert found.written_token_ids is not None and (found.written_token_ids.numpy() == ids).all()
    for name in ("mean", "std", "token_ids"):
        assert (getattr(found, name) == getattr(before, name)).all()
    failed = sum(not written[key] for key in kept)
    assert failed in (1, 2) and both.manifest.written_captions == len(kept) - failed
    # The held-out split, and a set without written captions, are to the byte what they were before there were any.
    heldout = "heldout-00000.tar"
    assert world.s3.read(f"both/latents/{heldout}") == world.s3.read(f"plain/latents/{heldout}")
    assert both.read("heldout", np.arange(4)).written_token_ids is None
    assert not {"captions_manifest_digest", "written_captions"} & plain.manifest.model_dump().keys()


def test_captions_of_other_shards_and_missing_ones_are_refused(world: World, finished: CaptionsManifest) -> None:
    folder = world.folder / "other"
    folder.mkdir()
    with pytest.raises(StepError, match=r"other/manifest\.json: no manifest of captions, which Recaption writes last"):
        encode(world, "refused", f"{BASE}/first", folder)
    (folder / "manifest.json").write_text(
        finished.model_copy(update={"source_manifest_digest": "0" * 64}).model_dump_json()
    )
    with pytest.raises(StepError, match=r"these captions are of other shards; run Recaption again"):
        encode(world, "refused", f"{BASE}/first", folder)

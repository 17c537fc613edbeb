"""img2dataset itself, in this process, on pictures that are there already: no web, the same code."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from params.programs import DownloadArguments
from steps.data.collecting.collection import Collection
from steps.data.encoding.samples import read_table
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shards_artifact import ShardsManifest, VerifiedShard
from steps.data.storage import Storage
from steps.data.tables.url_table import TableSlice
from steps.errors import StepError
from tests.steps.data.drawn_pictures import jpeg
from tests.steps.data.picture_kinds import HOLES, KINDS


class HerePool:
    """Makes shards in this process."""

    def __init__(self, maker: ShardMaker) -> None:
        self._maker = maker
        # Pictures that are there already need no addresses.
        maker.prepare(lambda: None, Path())

    def run(self, tasks: Iterator[TableSlice], is_retry: bool) -> Iterator[tuple[int, VerifiedShard]]:
        for task in tasks:
            yield task.index, self._maker.make(task)


def download(folder: Path, name: str, **settings: object) -> ShardsManifest:
    values = {"url_table": str(folder), "shards_uri": str(folder.parent / name), "image_size_px": 64, "min_yield": 0.0}
    arguments = DownloadArguments.model_validate({**values, "threads": 4, **settings})
    collection = Collection(arguments)
    shards = collection.finished()
    collection.artifact.begin()
    collection.collect(HerePool(collection.maker()), shards, lambda rows: None)
    return collection.manifest(shards)


def textured(number: int, size: tuple[int, int]) -> Image.Image:
    blots = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "pictures"
    folder.mkdir()
    textured(1, (192, 96)).save(folder / "a.png")
    textured(2, (96, 192)).save(folder / "b.jpg")
    (folder / "c.jpg").write_bytes((folder / "b.jpg").read_bytes())
    textured(2, (128, 256)).save(folder / "d.webp", quality=90)
    textured(3, (40, 40)).save(folder / "e.jpg")
    (folder / "f.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-50])
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"caption of {path.stem}")
    return folder


def samples(folder: Path, name: str) -> dict[str, tuple[tuple[int, int], str]]:
    """Return size and caption of the pictures in the only shard, by the address that they came from."""
    found = {}
    with tarfile.open(folder.parent / name / "00000.tar") as tar:
        contents: dict[str, Any] = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for key in sorted({name.split(".")[0] for name in contents}):
        size = Image.open(io.BytesIO(contents[f"{key}.jpg"])).size
        found[json.loads(contents[f"{key}.json"])["url"]] = (size, contents[f"{key}.txt"].decode())
    return found


def test_a_folder_of_pictures_becomes_shards_with_every_fate_counted(folder: Path) -> None:
    ledger = download(
        folder, "kept", source="pictures", resize_mode="keep_ratio", dedup="perceptual", max_hash_distance=3
    ).ledger
    assert (ledger.rows, ledger.kept, ledger.failed) == (6, 2, {"truncated": 1})
    assert ledger.filtered == {"duplicate_picture": 1, "near_duplicate": 1, "too_small": 1}


def test_the_aspect_is_kept_where_asked_for_and_nothing_is_letterboxed(folder: Path) -> None:
    download(folder, "kept", source="pictures", resize_mode="keep_ratio", dedup="perceptual", max_hash_distance=3)
    sizes = {name: size for name, (size, _) in samples(folder, "kept").items()}
    assert sizes == {"a.png": (128, 64), "b.jpg": (64, 128), "c.jpg": (64, 128), "d.webp": (64, 128)}
    table = read_table(Storage(str(folder.parent / "kept")), "00000.tar")
    told = list(zip(table.widths.tolist(), table.heights.tolist(), strict=True))
    assert told == [(128, 64), (64, 128)], "of those that are no copies, as Encode puts them into buckets"


def test_shards_of_others_become_verified_ones_with_their_captions(folder: Path) -> None:
    download(folder, "first", source="pictures")
    manifest = download(folder.parent / "first", "second", source="webdataset", samples_per_shard=10)
    assert manifest.ledger.kept == 3 and manifest.ledger.filtered == {"duplicate_picture": 1}
    captions = {address: caption for address, (_, caption) in samples(folder, "second").items()}
    assert set(captions.values()) == {f"caption of {name}" for name in "abcd"}
    assert all(address.startswith("00000.tar#") for address in captions)
    assert {size for size, _ in samples(folder, "second").values()} == {(64, 64)}


def test_hashes_and_boxes_of_the_table_are_heeded_in_every_round(tmp_path: Path) -> None:
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "0.tar", "w") as tar:
        for number in range(3):
            body = jpeg(textured(number, (80, 80)))
            digest = hashlib.md5(body).hexdigest() if number else "0" * 32
            facts = {"caption": f"c{number}", "md5": digest, "faces": "[[0, 0, 1, 1]]" if number == 2 else ""}
            for name, content in (("jpg", body), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    flags = {"source": "webdataset", "verify_hash": "md5=md5", "blur_column": "faces", "top_up": 1}
    manifest = download(tmp_path / "tar", "shards", **flags)
    assert (manifest.ledger.kept, manifest.ledger.failed) == (2, {"hash_mismatch": 1})
    with tarfile.open(tmp_path / "shards" / "00000.tar") as tar:
        sharpness = [
            int(np.abs(np.diff(np.asarray(Image.open(tar.extractfile(member))).astype(int), axis=1)).sum())  # type: ignore[arg-type]
            for member in tar
            if member.name.endswith(".jpg")
        ]
    assert sharpness[1] < 0.6 * sharpness[0]
    with pytest.raises(StepError, match=r"verify_hash: .* has no column 'sha'; it has url, caption"):
        download(tmp_path / "tar", "others", source="webdataset", verify_hash="sha=md5")


def test_what_was_done_to_pictures_is_counted_and_stands_in_their_table(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    kinds = {
        "turned": KINDS["jpeg turned 6"],
        "clear": HOLES["png"],
        "plain": KINDS["jpeg"],
    }
    for name, make in kinds.items():
        (folder / f"{name}.jpg").write_bytes(make())
        (folder / f"{name}.txt").write_text(name)
    manifest = download(folder, "shards", source="pictures", image_size_px=200, upscale=True)
    assert manifest.ledger.treated == {"laid_on_white": 1, "turned_upright": 1, "upscaled": 3}
    assert manifest.shards[0].treated == manifest.ledger.treated
    table = pq.read_table(tmp_path / "shards" / "00000.samples.parquet").to_pylist()
    assert [(row["caption"], row["format"], row["orientation"], row["has_alpha"]) for row in table] == [
        ("clear", "PNG", 1, True),
        ("plain", "JPEG", 1, False),
        ("turned", "JPEG", 6, False),
    ]
    assert {(row["original_width"], row["original_height"], row["is_upscaled"]) for row in table} == {(160, 120, True)}
    storage = Storage(str(tmp_path / "shards"))
    assert len(read_table(storage, "00000.tar", min_original_px=120).keys) == 3
    small = read_table(storage, "00000.tar", min_original_px=121)
    assert (small.keys, small.too_small_samples) == ([], 3)

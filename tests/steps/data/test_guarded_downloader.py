"""img2dataset itself, in this process, on pictures that are there already: no web, the same code."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from params.programs import DownloadArguments
from steps.data.collection import Collection
from steps.data.guarded_downloader import ShardMaker, ShardTask
from steps.data.samples import read_table
from steps.data.shard_pool import Outcome
from steps.data.shards import ShardsManifest
from steps.data.storage import Storage


class HerePool:
    """Makes shards in this process."""

    def __init__(self, maker: ShardMaker) -> None:
        self._maker = maker

    def run(self, tasks: Iterator[ShardTask]) -> Iterator[Outcome]:
        for task in tasks:
            yield task, self._maker.make(task)


def download(folder: Path, name: str, **settings: object) -> ShardsManifest:
    values = {"url_table": str(folder), "shards_uri": str(folder.parent / name), "image_size_px": 64, "min_yield": 0.0}
    arguments = DownloadArguments.model_validate({**values, "threads": 4, **settings})
    collection = Collection(arguments)
    shards = collection.finished()
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

import gc
import json
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import webdataset
from safetensors.numpy import load

from params.layout import LATENTS_FORMER_INDEX_FILE, LATENTS_INDEX_FILE, MANIFEST_FILE
from steps.data.latents.latents_index import SCHEMA, index_bytes, read_index
from steps.data.latents.latents_manifest import IndexedShard, LatentsIndex
from steps.data.loading import latents
from steps.data.loading.block_reader import block_table
from steps.data.loading.latents import LatentsDataset
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.latents_folders import tensors_of, write_latents


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    dataset = LatentsDataset(write_latents(tmp_path, embeddings=True))
    assert (dataset.count("train"), dataset.count("heldout"), dataset.count("other")) == (45, 11, 0)
    rows = np.array([44, 0, 17, 17, 8, 23])
    batch = dataset.read("train", rows)
    expected = tensors_of(range(45), embeddings=True)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(getattr(batch, name).numpy(), tensor[rows])
    assert batch.mean.dtype == torch.float16 and batch.token_ids.dtype == torch.int32


def test_latents_without_embeddings_have_none(tmp_path: Path) -> None:
    assert LatentsDataset(write_latents(tmp_path)).read("heldout", np.arange(3)).embeddings is None


def test_more_blocks_than_the_cache_holds_are_read_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "KEPT_BLOCKS", 2)
    dataset = LatentsDataset(write_latents(tmp_path))
    rows = np.random.default_rng(0).permutation(45)
    batch = dataset.read("train", rows)
    np.testing.assert_array_equal(batch.token_ids[:, 0].numpy(), rows)
    np.testing.assert_array_equal(batch.mean[:, 0, 0, 0].numpy(), rows)


def test_a_row_that_is_not_there_is_refused(tmp_path: Path) -> None:
    dataset = LatentsDataset(write_latents(tmp_path))
    for row in (-1, 45):
        with pytest.raises(IndexError):
            dataset.read("train", np.array([row]))


def test_stock_webdataset_reads_the_shards(tmp_path: Path) -> None:
    write_latents(tmp_path)
    shards = [str(tmp_path / f"train-{index:05d}.tar") for index in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files to the garbage collector
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
        gc.collect()
    assert [sample["__key__"] for sample in samples][:2] == ["train-00000-00000", "train-00000-00001"]
    ids = np.concatenate([load(sample["safetensors"])["token_ids"][:, 0] for sample in samples])
    assert ids.tolist() == list(range(45))


def indexed(folder: Path) -> list[IndexedShard]:
    """What the index of a folder says of its shards."""
    rows = read_index(Storage(str(folder)), b"").to_pylist()
    return [IndexedShard(**{**row, "xxh3": [f"{number:016x}" for number in row["xxh3"]]}) for row in rows]


def test_only_listed_shards_count(tmp_path: Path) -> None:
    write_latents(tmp_path)
    (tmp_path / "train-00002.tar").write_bytes(b"left behind")
    assert LatentsDataset(tmp_path).count("train") == 45


@pytest.mark.parametrize("name", [MANIFEST_FILE, LATENTS_INDEX_FILE])
def test_a_folder_without_manifest_or_index_was_never_finished(tmp_path: Path, name: str) -> None:
    write_latents(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StepError, match=f"{name}: cannot be read .* never finished"):
        LatentsDataset(tmp_path)


def test_an_index_of_other_latents_is_refused(tmp_path: Path) -> None:
    write_latents(tmp_path)
    shards = indexed(tmp_path)
    (tmp_path / LATENTS_INDEX_FILE).write_bytes(index_bytes(shards[:-1]))
    with pytest.raises(StepError, match="does not belong to"):
        LatentsDataset(tmp_path)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    write_latents(tmp_path)
    (tmp_path / LATENTS_INDEX_FILE).write_bytes(b"no index" * 9)
    with pytest.raises(StepError, match=r"index.arrow: Not an Arrow file"):
        LatentsDataset(tmp_path)


def test_an_index_of_an_earlier_release_gives_the_same_blocks(tmp_path: Path) -> None:
    write_latents(tmp_path)
    now = LatentsDataset(tmp_path)
    index = LatentsIndex(shards=tuple(indexed(tmp_path)))
    (tmp_path / LATENTS_INDEX_FILE).unlink()
    (tmp_path / LATENTS_FORMER_INDEX_FILE).write_text(index.model_dump_json(indent=1))
    for split in ("train", "heldout"):
        former = vars(LatentsDataset(tmp_path).table(split))
        for name, value in vars(now.table(split)).items():
            assert np.array_equal(former[name], value), name


def test_what_cannot_be_mapped_is_copied_once_for_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "host"))
    (tmp_path / "host").mkdir()
    folder = tmp_path / "latents"
    write_latents(folder)
    files, manifest = Storage(f"file://{folder}"), (folder / MANIFEST_FILE).read_bytes()
    first = read_index(files, manifest)
    (copy,) = (tmp_path / "host").glob("*.arrow")
    before = copy.stat().st_mtime_ns
    assert read_index(files, manifest).equals(first)
    assert copy.stat().st_mtime_ns == before
    assert first.equals(read_index(Storage(str(folder)), manifest))


def test_opening_an_index_takes_little_more_memory_than_what_is_in_it(tmp_path: Path) -> None:
    """4 times the 32 bytes that a block needs; as JSON it took 12 times."""
    blocks, shards = 64, 4000
    one = {"split": "train", "bucket": 0, "block_rows": [256] * blocks, "sizes": [4_269_184] * blocks}
    rows = [
        {"name": f"train-{number:05d}.tar", "offsets": list(range(blocks)), "xxh3": [2**63 + number] * blocks, **one}
        for number in range(shards)
    ]
    with pa.OSFile(str(tmp_path / LATENTS_INDEX_FILE), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as file:
        file.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    table = block_table(read_index(Storage(str(tmp_path)), b""), "train")
    peak = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    assert len(table.rows) == blocks * shards and table.name(65) == "train-00001.tar at byte 1"
    assert peak + (tmp_path / LATENTS_INDEX_FILE).stat().st_size < 4 * 32 * blocks * shards
    assert peak < 4 * blocks * shards


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    write_latents(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**manifest, "format_version": 2}))
    with pytest.raises(StepError, match="format 2, this code reads 1"):
        LatentsDataset(tmp_path)


def test_latents_of_another_encoder_are_refused(tmp_path: Path) -> None:
    manifest = LatentsDataset(write_latents(tmp_path)).manifest
    digests = {"encoder_digest": "e" * 64, "tokenizer_digest": "t" * 64, "text_encoder_digest": "another"}
    manifest.require(**digests)
    with pytest.raises(StepError, match="made by another encoder"):
        manifest.require(**{**digests, "encoder_digest": "f" * 64})
    cached = LatentsDataset(write_latents(tmp_path, embeddings=True)).manifest
    with pytest.raises(StepError, match="made by another text encoder"):
        cached.require(**digests)


def test_an_order_over_no_samples_is_refused(tmp_path: Path) -> None:
    dataset = LatentsDataset(write_latents(tmp_path, {"train": [[8]]}))
    with pytest.raises(StepError, match="no 'heldout' samples"):
        dataset.order("heldout", 0, 4)

import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shapes import captions, pictures
from steps.data.encoding.buckets import Buckets, Size, buckets_of
from steps.data.encoding.decoding import ShardsSource, deal, decode, planned_samples
from steps.data.encoding.plan import Block, PlannedShard, Selection, make_plan, summarize
from steps.data.encoding.samples import Sample, read_table
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.shapes_shards import write_shards

SQUARE = buckets_of(32, 1.0, 8)
SELECTION = Selection(0.3, SQUARE)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShardsSource:
    uri = str(tmp_path_factory.mktemp("shards"))
    manifest = write_shards(uri, [20, 7, 13])
    tables = [read_table(Storage(uri), shard.name) for shard in manifest.shards]
    plan = make_plan(
        [table.name for table in tables], [summarize(table, SELECTION) for table in tables], SELECTION, 100
    )
    return ShardsSource(uri, plan)


def blocks_of(source: ShardsSource, shards: Iterable[PlannedShard]) -> dict[Block, list[Sample]]:
    """Deal all sources out; return the samples of each block."""
    found: dict[Block, list[Sample]] = defaultdict(list)
    for parts in source.plan.dealt(list(shards)):
        for number, samples in deal(source, [part for _, part in parts]):
            found[parts[number][0]] += samples
    return found


def test_blocks_hold_the_planned_samples_in_order(source: ShardsSource) -> None:
    seen: dict[str, list[str]] = {"train": [], "heldout": []}
    shards = list(source.plan.shards(12, 4))
    found = blocks_of(source, shards)
    for shard in shards:
        for number, rows in enumerate(shard.block_rows):
            samples = found[shard.name, number]
            assert len(samples) == rows
            for sample in samples:
                drawn = pictures.draw(captions.parse(sample.caption), 32)
                assert np.abs(decode(sample, Size(32, 32)).astype(int) - drawn.astype(int)).mean() < 12
            seen[shard.split] += [sample.caption for sample in samples]
        first, count = shard.first_row, shard.rows
        assert [one.key for one in planned_samples(source, shard.split, first, count)] == [
            one.key for number in range(len(shard.block_rows)) for one in found[shard.name, number]
        ]
    tables = [read_table(Storage(source.shards_uri), name) for name in source.plan.sources]
    texts = [text for table in tables for text in table.captions]
    assert sorted(seen["train"] + seen["heldout"]) == sorted(texts)
    assert [text for text in texts if text in set(seen["train"])] == seen["train"]


def test_pictures_whose_originals_were_too_small_are_in_no_block(tmp_path: Path) -> None:
    uri = str(tmp_path)
    names = [shard.name for shard in write_shards(uri, [12, 8]).shards]
    shorter = {
        name: [64 if row % 3 else 40 for row in range(count)] for name, count in zip(names, (12, 8), strict=True)
    }
    for name, sides in shorter.items():
        path = tmp_path / name.replace(".tar", ".samples.parquet")
        table = pq.read_table(path)
        for side, pixels in (("original_width", [2 * side for side in sides]), ("original_height", sides)):
            column = table.schema.get_field_index(side)
            table = table.set_column(column, side, pa.array(pixels, pa.int32()))
        pq.write_table(table, path)
    selection = Selection(0.0, SQUARE, min_original_px=64)
    summaries = [summarize(read_table(Storage(uri), name, 64), selection) for name in names]
    plan = make_plan(names, summaries, selection, 0)
    assert (plan.counts["train"], plan.too_small_samples) == (13, 7)
    found = [
        one.caption for samples in blocks_of(ShardsSource(uri, plan), plan.shards(16, 4)).values() for one in samples
    ]
    every = [
        (text, side)
        for name in names
        for text, side in zip(read_table(Storage(uri), name).captions, shorter[name], strict=True)
    ]
    assert found == [text for text, side in every if side == 64]


def read_by(monkeypatch: pytest.MonkeyPatch, uri: str, names: list[str], buckets: Buckets) -> tuple[int, int]:
    """Return the requests for, and the bytes of, the pictures that an encoding of all samples reads."""
    asked: list[int] = []
    read = Storage.read_range

    def counted(self: Storage, name: str, start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return read(self, name, start, stop)

    selection = Selection(0.1, buckets)
    plan = make_plan(names, [summarize(read_table(Storage(uri), one), selection) for one in names], selection, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "read_range", counted)
        found = blocks_of(ShardsSource(uri, plan), plan.shards(64, 16))
    assert sum(map(len, found.values())) == sum(plan.counts.values())
    return len(asked), sum(asked)


def test_buckets_multiply_neither_requests_nor_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path)
    names = [shard.name for shard in write_shards(uri, [70, 50, 90], ratios=(1.0, 1.7, 3.5, 0.6, 0.3)).shards]
    # Shards of real ones' sizes would be read with some requests each, and samples of others lie far from each other.
    monkeypatch.setattr("steps.data.encoding.samples.MERGED_GAP_BYTES", 1 << 12)
    monkeypatch.setattr("steps.data.encoding.samples.REQUEST_BYTES", 1 << 16)
    squares, square_bytes = read_by(monkeypatch, uri, names, SQUARE)
    assert squares > 2 * len(names)
    buckets = buckets_of(64, 4.0, 16)
    assert len(buckets.sizes) >= 5
    assert read_by(monkeypatch, uri, names, buckets) == (squares, square_bytes)
    assert square_bytes <= sum((tmp_path / name).stat().st_size for name in names)


@pytest.mark.parametrize(("mode", "size"), [("L", (64, 64)), ("RGB", (100, 64)), ("CMYK", (64, 90)), ("RGB", (20, 20))])
def test_every_kind_of_picture_becomes_a_square_in_colour(mode: str, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else None).save(buffer, "JPEG")
    assert decode(Sample("1", "", buffer.getvalue()), Size(32, 32)).shape == (32, 32, 3)


def test_the_middle_is_kept() -> None:
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    assert decode(Sample("1", "", buffer.getvalue()), Size(64, 64))[:, 4:-4].min() > 200


def test_a_picture_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(StepError, match="sample 00001: its picture cannot be decoded"):
        decode(Sample("00001", "", b"\xff\xd8\xff"), Size(32, 32))

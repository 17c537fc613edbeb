import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shapes import captions, pictures
from steps.data.encoding.buckets import Size, buckets_of
from steps.data.encoding.decoding import ShardsSource, decode, decode_span, spans
from steps.data.encoding.plan import PlannedShard, Selection, make_plan, summarize
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


def test_blocks_hold_the_planned_samples_in_order(source: ShardsSource) -> None:
    seen: dict[str, list[str]] = {"train": [], "heldout": []}
    for shard in source.plan.shards(12, 4):
        numbers = []
        for span in spans([shard], SQUARE):
            for block in decode_span(span, source):
                numbers.append(block["block"])
                assert block["shard"] == shard.name
                pixels = np.frombuffer(block["pixels"], np.uint8).reshape(-1, 32, 32, 3)
                assert len(pixels) == len(block["captions"]) == shard.block_rows[block["block"]]
                for picture, caption in zip(pixels, block["captions"], strict=True):
                    drawn = pictures.draw(captions.parse(caption), 32)
                    assert np.abs(picture.astype(int) - drawn.astype(int)).mean() < 12
                seen[shard.split] += block["captions"]
        assert numbers == list(range(len(shard.block_rows)))
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
        caption
        for shard in plan.shards(16, 4)
        for span in spans([shard], SQUARE)
        for block in decode_span(span, ShardsSource(uri, plan))
        for caption in block["captions"]
    ]
    every = [
        (text, side)
        for name in names
        for text, side in zip(read_table(Storage(uri), name).captions, shorter[name], strict=True)
    ]
    assert found == [text for text, side in every if side == 64]


def test_tasks_stay_small_whatever_the_resolution() -> None:
    shard = PlannedShard("train-00000.tar", "train", 0, (256,) * 32)
    assert [len(span["sizes"]) for span in spans([shard], buckets_of(64, 1.0, 8))] == [4] * 8
    assert [len(span["sizes"]) for span in spans([shard], buckets_of(512, 1.0, 8))] == [1] * 32
    assert [span["first_row"] for span in spans([shard], buckets_of(64, 1.0, 8))] == list(range(0, 8192, 1024))


@pytest.mark.parametrize(("mode", "size"), [("L", (64, 64)), ("RGB", (100, 64)), ("CMYK", (64, 90)), ("RGB", (20, 20))])
def test_every_kind_of_picture_becomes_a_square_in_colour(mode: str, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else None).save(buffer, "JPEG")
    assert decode(Sample("1", "", buffer.getvalue(), b""), Size(32, 32)).shape == (32, 32, 3)


def test_the_middle_is_kept() -> None:
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    assert decode(Sample("1", "", buffer.getvalue(), b""), Size(64, 64))[:, 4:-4].min() > 200


def test_a_picture_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(StepError, match="sample 00001: its picture cannot be decoded"):
        decode(Sample("00001", "", b"\xff\xd8\xff", b""), Size(32, 32))

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shapes import captions, pictures
from steps.data.buckets import Size, square
from steps.data.decoding import ShardsSource, decode, decode_span, spans
from steps.data.plan import PlannedShard, make_plan, summarize
from steps.data.samples import Sample, read_table
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.shapes_shards import write_shards

SQUARE = square(32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShardsSource:
    uri = str(tmp_path_factory.mktemp("shards"))
    manifest = write_shards(uri, [20, 7, 13])
    tables = [read_table(Storage(uri), shard.name) for shard in manifest.shards]
    plan = make_plan(
        [table.name for table in tables], [summarize(table, 0.3, SQUARE) for table in tables], 0.3, 100, SQUARE
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


def test_tasks_stay_small_whatever_the_resolution() -> None:
    shard = PlannedShard("train-00000.tar", "train", 0, (256,) * 32)
    assert [len(span["sizes"]) for span in spans([shard], square(64))] == [4] * 8
    assert [len(span["sizes"]) for span in spans([shard], square(512))] == [1] * 32
    assert [span["first_row"] for span in spans([shard], square(64))] == list(range(0, 8192, 1024))


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

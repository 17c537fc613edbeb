import math
from pathlib import Path
from typing import Any

import pytest

from steps.data.encoding.latents_artifact import write_shard
from steps.data.encoding.plan import PlannedShard
from steps.data.latents.block import to_bytes
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.latents_folders import tensors_of

PLANNED = PlannedShard("train-00000.tar", "train", 0, (4, 4, 2))


def rows() -> list[dict[str, Any]]:
    sizes = [range(0, 4), range(4, 8), range(8, 10)]
    return [
        {
            "shard": PLANNED.name,
            "block": number,
            "content": to_bytes(tensors_of(size)),
            "sums": [1.0, float(number)],
            "psnr_db": math.nan if number else 30.0,
            "written": 0,
        }
        for number, size in enumerate(sizes)
    ]


def test_blocks_arrive_in_any_order_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record = write_shard(storage, "plan", PLANNED, rows())
    content = storage.read(PLANNED.name)
    others = [{**row, "shard": "train-00001.tar"} for row in rows()]
    again = write_shard(storage, "plan", PLANNED, [*others, *reversed(rows())])
    assert storage.read(PLANNED.name) == content and again == record
    assert record.shard.listed.rows == 10 and record.sums == (3.0, 3.0) and record.psnr_db == 30.0


def test_a_missing_block_ends_the_step(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"train-00000\.tar: 2 of 3 blocks arrived"):
        write_shard(Storage(str(tmp_path)), "plan", PLANNED, rows()[:2])


def test_blocks_of_other_sizes_end_the_step(tmp_path: Path) -> None:
    wrong = PlannedShard(PLANNED.name, "train", 0, (4, 3, 3))
    with pytest.raises(StepError, match="not as planned"):
        write_shard(Storage(str(tmp_path)), "plan", wrong, rows())

import math
from pathlib import Path

import pytest

from steps.data.encoding.latents_artifact import EncodedBlock, write_shard
from steps.data.encoding.plan import PlannedShard
from steps.data.latents.block import to_bytes
from steps.data.storage import Storage
from steps.errors import StepError
from tests.steps.data.latents_folders import tensors_of

PLANNED = PlannedShard("train-00000.tar", "train", 0, (4, 4, 2))


def blocks() -> list[EncodedBlock]:
    sizes = [range(0, 4), range(4, 8), range(8, 10)]
    return [
        EncodedBlock(to_bytes(tensors_of(size)), [1.0, float(number)], math.nan if number else 30.0)
        for number, size in enumerate(sizes)
    ]


def test_the_record_of_a_shard_does_not_lie_beside_it(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record = write_shard(storage, "plan", PLANNED, blocks())
    assert record.shard.listed.rows == 10 and record.sums == (3.0, 3.0) and record.psnr_db == 30.0
    assert list(storage.sizes()) == [PLANNED.name]
    assert list(Storage(f"{tmp_path}/records").sizes()) == ["train-00000.verified.json"]


@pytest.mark.parametrize("planned", [(4, 3, 3), (4, 4), (4, 4, 2, 4)])
def test_blocks_that_are_not_as_planned_end_the_step(tmp_path: Path, planned: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match="not as planned"):
        write_shard(Storage(str(tmp_path)), "plan", PlannedShard(PLANNED.name, "train", 0, planned), blocks())
    assert not Storage(str(tmp_path)).sizes()

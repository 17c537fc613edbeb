from pathlib import Path

import numpy as np
import pytest

from steps.data.loading import latents
from steps.data.loading.latents import LatentsDataset
from steps.errors import StepError
from tests.steps.data.latents_folders import write_latents


def damage(folder: Path, shard: str, block: int, cut: bool = False) -> None:
    """Flip a byte in the middle of a block, or end the file there."""
    dataset = LatentsDataset(folder)
    blocks = dataset.table("train")
    number = int(blocks.shard_starts[blocks.names.index(shard)]) + block
    place = int(blocks.offsets[number] + blocks.sizes[number] // 2)
    content = bytearray((folder / shard).read_bytes())
    if cut:
        del content[place:]
    else:
        content[place] ^= 0xFF
    (folder / shard).write_bytes(bytes(content))


def opened(folder: Path, kept_blocks: int = 6) -> LatentsDataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "KEPT_BLOCKS", kept_blocks)
        return LatentsDataset(folder, max_lost_fraction=0.5)


def read_ids(dataset: LatentsDataset, rows: range) -> list[int]:
    ids: list[int] = dataset.read("train", np.array(rows)).token_ids[:, 0].tolist()
    return ids


def test_a_corrupt_block_is_quarantined_and_named_and_reading_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(write_latents(tmp_path), "train-00000.tar", 1)
    dataset = opened(tmp_path)
    assert read_ids(dataset, range(45)) == [*range(8), *range(16, 24), *range(16, 45)]
    assert dataset.blocks("train").lost_rows == 8
    assert "QUARANTINE train-00000.tar at byte" in capsys.readouterr().out


def test_a_smaller_block_stands_in_over_and_over(tmp_path: Path) -> None:
    damage(write_latents(tmp_path), "train-00001.tar", 1)
    dataset = opened(tmp_path)
    assert read_ids(dataset, range(32, 40)) == [40, 41, 42, 43, 44, 40, 41, 42]


def test_what_stands_in_does_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    damage(write_latents(tmp_path), "train-00001.tar", 1)
    small, large = opened(tmp_path, 1), opened(tmp_path, 6)
    read_ids(large, range(45))
    assert read_ids(small, range(30, 42)) == read_ids(large, range(30, 42))


def test_a_file_that_ends_too_early_is_quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(write_latents(tmp_path), "train-00001.tar", 2, cut=True)
    dataset = opened(tmp_path)
    assert read_ids(dataset, range(40, 45)) == [0, 1, 2, 3, 4]
    assert "ends" in capsys.readouterr().out


def test_losing_more_than_the_limit_ends_the_job_and_names_the_shard(tmp_path: Path) -> None:
    damage(write_latents(tmp_path), "train-00000.tar", 1)
    with pytest.raises(StepError, match=r"8 of 45 samples cannot be read, the last in train-00000\.tar"):
        LatentsDataset(tmp_path).read("train", np.arange(20))


def test_a_missing_shard_ends_the_job(tmp_path: Path) -> None:
    write_latents(tmp_path)
    (tmp_path / "train-00001.tar").unlink()
    with pytest.raises(StepError, match=r"train-00001\.tar"):
        LatentsDataset(tmp_path).read("train", np.arange(45))


def test_blocks_in_memory_are_not_read_again(tmp_path: Path) -> None:
    dataset = opened(write_latents(tmp_path))
    read_ids(dataset, range(45))
    for path in tmp_path.glob("train-*.tar"):
        path.unlink()
    assert read_ids(dataset, range(45)) == list(range(45))

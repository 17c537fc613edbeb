from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.latents import LatentsDataset
from steps.data.loader import LatentsLoader
from steps.errors import StepError
from tests.steps.data.latents_folders import write_latents

SEED = 5
RANKS = [1, 2, 3, 4, 6, 12]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LatentsDataset:
    sizes = {"train": [[8, 8, 8], [8, 8, 5], [8, 1]], "heldout": [[4]]}
    return LatentsDataset(write_latents(tmp_path_factory.mktemp("latents"), sizes))


def load(dataset: LatentsDataset, batch: int, ranks: int, first: int, last: int) -> list[tuple[int, int]]:
    """Return (position, row) in global order, as `ranks` ranks load them."""
    order = dataset.order("train", SEED, batch)
    loaders = [LatentsLoader(dataset, order, batch, rank, ranks, first, last) for rank in range(ranks)]
    assert len({len(loader) for loader in loaders}) == 1
    seen: list[tuple[int, int]] = []
    iterators: list[Iterator[object]] = [iter(loader) for loader in loaders]
    for batches in zip(*iterators, strict=True):
        for loaded in batches:
            rows = loaded.token_ids[:, 0].tolist()  # type: ignore[attr-defined]
            assert (loaded.mean[:, 0, 0, 0] * 1).tolist() == rows  # type: ignore[attr-defined]
            seen += zip(loaded.positions.tolist(), rows, strict=True)  # type: ignore[attr-defined]
    return seen


@given(st.lists(st.tuples(st.sampled_from(RANKS), st.integers(1, 6)), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_stopping_anywhere_and_going_on_with_other_ranks_is_the_same_training(
    dataset: LatentsDataset, runs: list[tuple[int, int]]
) -> None:
    batch, position, seen = 12, 0, list[tuple[int, int]]()
    for ranks, batches in runs:
        seen += load(dataset, batch, ranks, position, position + batches * batch)
        position += batches * batch
    assert [place for place, _ in seen] == list(range(position))
    assert [row for _, row in seen] == dataset.order("train", SEED, batch).rows(0, position).tolist()


def test_an_epoch_sees_every_sample_once(dataset: LatentsDataset) -> None:
    count = dataset.count("train")
    for ranks in RANKS:
        rows = [row for _, row in load(dataset, 12, ranks, 0, 108)]
        assert sorted(rows[:count]) == list(range(count))
        assert sorted(rows[count : 2 * count]) == list(range(count))


def test_the_last_batch_may_be_smaller_where_it_divides(dataset: LatentsDataset) -> None:
    assert len(load(dataset, 12, 2, 0, 30)) == 30
    with pytest.raises(ValueError, match="must divide among 4 ranks"):
        LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 4, 0, 30)


def test_a_global_batch_that_does_not_divide_is_refused(dataset: LatentsDataset) -> None:
    with pytest.raises(ValueError, match="global_batch_size: 12 samples"):
        LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 5, 0, 24)


def test_memory_is_used_again(dataset: LatentsDataset) -> None:
    loader = LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 1, 0, 12 * 50)
    assert len({loaded.mean.data_ptr() for loaded in loader}) <= 6


def test_a_batch_holds_while_the_next_one_is_in_use(dataset: LatentsDataset) -> None:
    loader = LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 1, 0, 12 * 50)
    before: tuple[object, list[int]] | None = None
    for loaded in loader:
        if before is not None:
            assert before[0].token_ids[:, 0].tolist() == before[1]  # type: ignore[attr-defined]
        before = (loaded, loaded.token_ids[:, 0].tolist())


def test_leaving_early_ends_the_background_thread(dataset: LatentsDataset) -> None:
    loader = LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 1, 0, 12 * 1000)
    for _ in loader:
        break
    assert not [thread for thread in threading.enumerate() if thread.name == "latents-loader"]


def test_an_error_of_the_background_thread_is_raised(tmp_path: Path) -> None:
    dataset = LatentsDataset(write_latents(tmp_path))
    (tmp_path / "train-00000.tar").write_bytes(b"")
    with pytest.raises(StepError, match=r"train-00000\.tar"):
        list(LatentsLoader(dataset, dataset.order("train", 0, 4), 4, 0, 1, 0, 400))


def test_memory_does_not_grow_with_the_number_of_batches(dataset: LatentsDataset) -> None:
    def peak(batches: int) -> int:
        tracemalloc.start()
        for _ in LatentsLoader(dataset, dataset.order("train", 0, 12), 12, 0, 1, 0, 12 * batches):
            pass
        _, bytes_ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_

    peak(20)
    assert peak(400) < peak(40) * 1.5 + 100_000

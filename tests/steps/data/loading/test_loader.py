import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.loading.batch_ring import LoadedBatch
from steps.data.loading.latents import LatentsDataset
from steps.data.loading.loader import LatentsLoader, Share
from steps.errors import StepError
from tests.steps.data.latents_folders import BUCKET_SHAPES, write_latents
from tests.steps.data.loading.test_reader import damage
from tests.steps.data.rows_of_order import training_rows

SEED = 5
BATCH = 12
RANKS = [1, 2, 3, 4, 6, 12]
# Ranks, reading threads, and after how many batches the run is stopped.
runs_anywhere = st.lists(
    st.tuples(st.sampled_from(RANKS), st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LatentsDataset:
    sizes = {"train": [[8, 8, 8], [8, 8, 5], [8, 1]], "heldout": [[4]]}
    return LatentsDataset(write_latents(tmp_path_factory.mktemp("latents"), sizes))


@pytest.fixture(scope="module")
def bucketed(tmp_path_factory: pytest.TempPathFactory) -> LatentsDataset:
    sizes = {"train": [[8, 8, 5], [8, 8, 8], [8, 1], [7]], "heldout": [[4]]}
    buckets = {"train": [0, 1, 1, 2], "heldout": [1]}
    return LatentsDataset(write_latents(tmp_path_factory.mktemp("buckets"), sizes, buckets=buckets))


def one_rank(dataset: LatentsDataset, batches: int, threads: int = 8) -> LatentsLoader:
    order = dataset.order("train", 0, BATCH)
    return LatentsLoader(dataset.blocks("train"), order, Share(0, 1, 0, BATCH * batches), threads=threads)


def load(dataset: LatentsDataset, ranks: int, first: int, last: int, threads: int = 2) -> list[tuple[int, int]]:
    """Return (position, row) in global order, as `ranks` ranks load them."""
    shares = [Share(rank, ranks, first, last) for rank in range(ranks)]
    loaders = [
        LatentsLoader(dataset.blocks("train"), dataset.order("train", SEED, BATCH), s, threads=threads) for s in shares
    ]
    assert len({len(loader) for loader in loaders}) == 1
    seen: list[tuple[int, int]] = []
    iterators: list[Iterator[LoadedBatch]] = [iter(loader) for loader in loaders]
    for batches in zip(*iterators, strict=True):
        assert len({loaded.mean.shape[1:] for loaded in batches}) == 1, "the ranks of a step have one bucket"
        for loaded in batches:
            rows = loaded.token_ids[:, 0].tolist()
            assert (loaded.mean[:, 0, 0, 0] * 1).tolist() == rows
            assert (loaded.std[:, -1, -1, -1] * 8).tolist() == rows
            seen += zip(loaded.positions.tolist(), rows, strict=True)
    return seen


def load_in_runs(dataset: LatentsDataset, runs: list[tuple[int, int, int]]) -> list[int]:
    """Load by runs of (ranks, threads, batches), each from where the last one stopped; return the rows in order."""
    position, seen = 0, list[tuple[int, int]]()
    for ranks, threads, batches in runs:
        seen += load(dataset, ranks, position, position + batches * BATCH, threads)
        position += batches * BATCH
    assert [place for place, _ in seen] == list(range(position))
    rows = [row for _, row in seen]
    assert rows == training_rows(dataset.order("train", SEED, BATCH), 0, position).tolist()
    return rows


@given(runs_anywhere)
@settings(max_examples=40, deadline=None)
def test_stopping_anywhere_and_going_on_with_other_ranks_and_threads_is_the_same_training(
    dataset: LatentsDataset, runs: list[tuple[int, int, int]]
) -> None:
    rows = load_in_runs(dataset, runs)
    count = dataset.count("train")
    for start in range(0, len(rows) - count + 1, count):
        assert sorted(rows[start : start + count]) == list(range(count))


@given(runs_anywhere)
@settings(max_examples=25, deadline=None)
def test_with_buckets_too_stopping_anywhere_and_going_on_is_the_same_training(
    bucketed: LatentsDataset, runs: list[tuple[int, int, int]]
) -> None:
    rows = load_in_runs(bucketed, runs)
    for span in bucketed.spans("train").values():
        own = [row for row in rows if row in span]
        for start in range(0, len(own) - len(span) + 1, len(span)):
            assert sorted(own[start : start + len(span)]) == list(span), "each pass sees each sample once"


def test_a_batch_has_the_shape_of_its_bucket(bucketed: LatentsDataset) -> None:
    order, shapes = bucketed.order("train", 0, BATCH), set()
    for number, loaded in enumerate(one_rank(bucketed, 60)):
        bucket = order.streams[order.turn(number).stream].bucket
        assert loaded.mean.shape[1:] == loaded.std.shape[1:] == BUCKET_SHAPES[bucket]
        shapes.add(bucket)
    assert shapes == {0, 1, 2}


def test_a_corrupt_block_is_stood_in_for_by_one_of_its_shape(tmp_path: Path) -> None:
    sizes = {"train": [[8, 3], [8, 8]], "heldout": [[4]]}
    damage(write_latents(tmp_path, sizes, buckets={"train": [0, 2], "heldout": [1]}), "train-00000.tar", 1)
    dataset = LatentsDataset(tmp_path, 0.5)
    order = dataset.order("train", SEED, 3)
    loader = LatentsLoader(dataset.blocks("train"), order, Share(0, 1, 0, 81))
    seen = [
        (int(ids[0]), *values) for one in loader for ids, *values in zip(one.token_ids, one.mean, one.std, strict=True)
    ]
    assert all(bool((mean == row).all() and (std == row / 8).all()) for row, mean, std in seen)
    rows = [row for row, *_ in seen]
    assert rows == [{8: 0, 9: 1, 10: 2}.get(row, row) for row in training_rows(order, 0, 81).tolist()]
    assert loader.blocks.lost_rows == 3


@given(st.integers(1, 40), st.sampled_from(RANKS), st.sampled_from(RANKS))
@settings(max_examples=25, deadline=None)
def test_a_run_that_is_left_early_goes_on_where_it_was(
    dataset: LatentsDataset, batches: int, ranks: int, new_ranks: int
) -> None:
    """What was read ahead and not used is read again."""
    order = dataset.order("train", SEED, BATCH)
    endless = [
        iter(LatentsLoader(dataset.blocks("train"), order, Share(rank, ranks, 0, BATCH * 1000)))
        for rank in range(ranks)
    ]
    for _ in range(batches):
        for iterator in endless:
            next(iterator)
    for iterator in endless:
        iterator.close()  # type: ignore[attr-defined]
    first, last = batches * BATCH, (batches + 3) * BATCH
    rows = [row for _, row in load(dataset, new_ranks, first, last)]
    assert rows == training_rows(order, first, last - first).tolist()


def test_an_epoch_sees_every_sample_once(dataset: LatentsDataset) -> None:
    count = dataset.count("train")
    for ranks in RANKS:
        rows = [row for _, row in load(dataset, ranks, 0, 108)]
        assert sorted(rows[:count]) == list(range(count))
        assert sorted(rows[count : 2 * count]) == list(range(count))


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (Share(0, 5, 0, 24), "global_batch_size: 12 samples must divide among 5 ranks"),
        (Share(0, 4, 0, 30), "positions 0 to 30 are not batches of 12"),
        (Share(4, 4, 0, 24), "there is no Share"),
        (Share(0, 4, 24, 12), "there is no Share"),
    ],
)
def test_shares_with_which_ranks_would_take_different_numbers_of_steps_are_refused(
    dataset: LatentsDataset, share: Share, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LatentsLoader(dataset.blocks("train"), dataset.order("train", 0, BATCH), share)


def test_memory_is_used_again(dataset: LatentsDataset) -> None:
    loader = one_rank(dataset, 400)
    memory = {loaded.mean.data_ptr() for loaded in loader}
    assert len(memory) <= loader.order.streams[0].order.stretch_batches + 10


@pytest.mark.parametrize("kind", ["dataset", "bucketed"])
def test_a_batch_holds_while_the_next_one_is_in_use(kind: str, request: pytest.FixtureRequest) -> None:
    before: tuple[LoadedBatch, list[int]] | None = None
    for loaded in one_rank(request.getfixturevalue(kind), 200):
        if before is not None:
            assert before[0].token_ids[:, 0].tolist() == before[1]
        before = (loaded, loaded.token_ids[:, 0].tolist())


def test_leaving_early_ends_the_reading_threads(dataset: LatentsDataset) -> None:
    for _ in one_rank(dataset, 1000):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("latents")]


def test_a_corrupt_block_costs_its_own_samples_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(write_latents(tmp_path), "train-00000.tar", 1)
    dataset = LatentsDataset(tmp_path, 0.5)
    order = dataset.order("train", SEED, 5)
    loader = LatentsLoader(dataset.blocks("train"), order, Share(0, 1, 0, 45))
    rows = [int(row) for loaded in loader for row in loaded.token_ids[:, 0]]
    stand_ins = {lost: lost + 8 for lost in range(8, 16)}
    assert rows == [stand_ins.get(row, row) for row in training_rows(order, 0, 45).tolist()]
    assert loader.blocks.lost_rows == 8
    printed = capsys.readouterr().out
    assert printed.startswith("QUARANTINE train-00000.tar at byte") and "8 samples lost, 8 in all" in printed


def test_a_block_that_several_ranks_could_not_read_is_lost_once(tmp_path: Path) -> None:
    damage(write_latents(tmp_path), "train-00000.tar", 1)
    dataset = LatentsDataset(tmp_path, 0.5)
    order = dataset.order("train", SEED, 10)
    loaders = [LatentsLoader(dataset.blocks("train"), order, Share(rank, 2, 0, 450)) for rank in range(2)]
    assert [len(list(loader)) for loader in loaders] == [45, 45]
    assert [loader.blocks.lost_rows for loader in loaders] == [8, 8]
    both = loaders[0].unreadable_blocks() + loaders[1].unreadable_blocks()
    assert loaders[0].samples_in(both) == 8


def test_losing_more_than_the_limit_ends_training_and_names_the_shard(tmp_path: Path) -> None:
    dataset = LatentsDataset(write_latents(tmp_path), 0.4)
    (tmp_path / "train-00000.tar").write_bytes(b"")
    loader = LatentsLoader(dataset.blocks("train"), dataset.order("train", 0, 4), Share(0, 1, 0, 400))
    with pytest.raises(
        StepError, match=r"of 45 samples cannot be read, the last in train-00000\.tar.*max_lost_fraction"
    ):
        list(loader)


def test_memory_does_not_grow_with_the_number_of_batches(dataset: LatentsDataset) -> None:
    def peak(batches: int) -> int:
        tracemalloc.start()
        # How many blocks several threads read at once is chance, and each has memory for one.
        for _ in one_rank(dataset, batches, threads=1):
            pass
        _, bytes_ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_

    # What else this process does meanwhile, such as a late import, is no memory of the loader: the least counts.
    peak(20)
    assert min(peak(400) for _ in range(3)) < peak(60) * 1.5 + 100_000

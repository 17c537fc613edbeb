import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from params.programs import TrainArguments
from steps.data.latents.order import MAX_LANES, SampleOrder
from tests.steps.data.rows_of_order import rows_of

block_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=30)


@given(block_sizes, st.integers(0, 5), st.integers(1, 24), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_every_epoch_holds_every_row_exactly_once(blocks: list[int], seed: int, batch: int, window: int) -> None:
    count = sum(blocks)
    order = SampleOrder(count, seed, global_batch_size=batch, block_rows=blocks, window_blocks=window)
    for epoch in range(3):
        rows = rows_of(order, epoch * count, count)
        assert sorted(rows.tolist()) == list(range(count))


@given(block_sizes, st.integers(1, 24), st.data())
@settings(max_examples=100, deadline=None)
def test_rows_do_not_depend_on_where_reading_begins_or_on_what_was_read_before(
    blocks: list[int], batch: int, data: st.DataObject
) -> None:
    count = sum(blocks)
    order = SampleOrder(count, 3, global_batch_size=batch, block_rows=blocks)
    whole = rows_of(order, 0, 4 * count)
    for _ in range(4):
        first = data.draw(st.integers(0, 4 * count))
        n = data.draw(st.integers(0, 4 * count - first))
        assert rows_of(order, first, n).tolist() == whole[first : first + n].tolist()
        fresh = SampleOrder(count, 3, global_batch_size=batch, block_rows=blocks)
        assert rows_of(fresh, first, n).tolist() == whole[first : first + n].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = SampleOrder(1000, 0, global_batch_size=16, block_rows=[50] * 20)
    other = SampleOrder(1000, 1, global_batch_size=16, block_rows=[50] * 20)
    assert rows_of(first, 0, 1000).tolist() != rows_of(first, 1000, 1000).tolist()
    assert rows_of(first, 0, 1000).tolist() != rows_of(other, 0, 1000).tolist()


def test_the_order_of_a_seed_never_changes() -> None:
    """A change here breaks the resumption of every training run under way."""
    order = SampleOrder(20, 7, global_batch_size=4, block_rows=[4] * 5)
    assert rows_of(order, 0, 20).tolist() == PINNED_EPOCH


def test_batches_of_a_small_set_mix_blocks_from_all_over() -> None:
    blocks, rows, batch = 55, 64, 64
    order = SampleOrder(blocks * rows, 0, global_batch_size=batch, block_rows=[rows] * blocks)
    kinds = [len(set((rows_of(order, k * batch, batch) // rows).tolist())) for k in range(55)]
    # 64 draws of 55 blocks hit 38 different ones if they are independent.
    assert min(kinds) >= 38
    rank_correlation = np.corrcoef(np.arange(blocks * rows), rows_of(order, 0, blocks * rows))[0, 1]
    assert abs(rank_correlation) < 0.1


def test_a_rank_reads_each_of_its_blocks_nearly_once() -> None:
    blocks, rows, batch, ranks = 4096, 16, 256, 8
    count, share = blocks * rows, batch // ranks
    order = SampleOrder(count, 0, global_batch_size=batch, block_rows=[rows] * blocks)
    starts = [k * batch + 3 * share for k in range(count // batch)]
    touched = np.concatenate([rows_of(order, start, share) // rows for start in starts])
    # An eighth of the blocks, and the two halves of blocks on the borders of its lanes.
    assert len(np.unique(touched)) <= blocks // ranks + 2 * order.lanes // ranks * order.window_blocks


@given(block_sizes, st.integers(1, 24), st.integers(1, 3), st.integers(0, 20), st.data())
@settings(max_examples=100, deadline=None)
def test_stretches_hold_what_they_say_from_any_batch_on(
    blocks: list[int], batch: int, window: int, first_batch: int, data: st.DataObject
) -> None:
    count, batches = sum(blocks), 12
    lanes = data.draw(st.sampled_from([n for n in range(1, batch + 1) if batch % n == 0]))
    order = SampleOrder(count, 3, global_batch_size=batch, block_rows=blocks, max_lanes=lanes, window_blocks=window)
    starts = np.cumsum(blocks) - blocks
    for lane in range(lanes):
        for stretch in order.stretches(lane, first_batch):
            if stretch.batches[0] >= first_batch + batches:
                break
            assert stretch.batches[-1] - stretch.batches[0] < order.stretch_batches
            assert set(np.searchsorted(starts, stretch.rows, side="right") - 1) <= set(stretch.blocks)
    from_the_first = rows_of(order, 0, (first_batch + batches) * batch)
    assert (
        rows_of(order, first_batch * batch, batches * batch).tolist() == from_the_first[first_batch * batch :].tolist()
    )


@pytest.mark.parametrize("ranks", [64, 512, 1024])
@pytest.mark.parametrize("batch", [2048, 4096])
def test_a_rank_reads_what_it_uses_where_there_are_as_many_lanes(ranks: int, batch: int) -> None:
    rows = 256
    order = SampleOrder(rows * 100_000, 1, global_batch_size=batch, block_rows=[rows] * 100_000, max_lanes=ranks)
    share, first_batch = batch // ranks, 1000
    last_batch = first_batch + 64 * 512 // share
    read = used = 0
    for rank in (0, 1, ranks // 2, ranks - 1):
        first = rank * share
        for lane in range(first // order.lane_rows, (first + share - 1) // order.lane_rows + 1):
            for stretch in order.stretches(lane, first_batch):
                if stretch.batches[0] >= last_batch:
                    break
                places = stretch.places - first
                own = (places >= 0) & (places < share) & (stretch.batches < last_batch)
                used += int(own.sum())
                read += rows * len(stretch.blocks) * bool(own.any())
    assert read <= 1.1 * used


def test_a_training_that_says_nothing_keeps_its_lanes() -> None:
    """They are part of the order: trainings of earlier releases go on in theirs."""
    assert SampleOrder(4096, 0, global_batch_size=2048).lanes == TrainArguments().max_lanes == MAX_LANES == 256


def test_a_stretch_spans_few_batches() -> None:
    order = SampleOrder(65536, 0, global_batch_size=256, block_rows=[16] * 4096)
    assert order.stretch_batches == 2 * 16 + 1


def test_two_billion_rows_open_without_a_permutation_of_rows() -> None:
    rows_per_block = 1 << 20
    order = SampleOrder(2_000 * rows_per_block, 0, global_batch_size=2048, block_rows=[rows_per_block] * 2_000)
    rows = rows_of(order, 1_500_000_000, 8)
    assert len(set(rows.tolist())) == 8


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make 10 rows"):
        SampleOrder(10, 0, block_rows=[4, 4])
    with pytest.raises(ValueError, match="max_lanes must be at least 1"):
        SampleOrder(10, 0, global_batch_size=4, max_lanes=0)


PINNED_EPOCH = [19, 12, 7, 10, 14, 18, 6, 1, 13, 15, 5, 2, 16, 11, 8, 0, 17, 4, 9, 3]

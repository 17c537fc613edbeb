"""Blocks that are made meanwhile: the same batches as from a disk, in bounded memory, whatever the encoders' speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.latents.order import SampleOrder
from steps.data.loading.loader import Share
from steps.data.loading.online_loader import BlockLostError, OnlineLoader, Tensors, kept_blocks, schedule
from steps.errors import StepError

ROWS = 8


def block_sizes(count: int) -> np.ndarray:
    return np.array([min(ROWS, count - first) for first in range(0, count, ROWS)], np.int64)


class Blocks:
    """Makes blocks whose mean is the number of the row; counts what is asked for and not yet taken."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.sizes, self.broken = block_sizes(count), broken
        self.firsts = np.cumsum(self.sizes) - self.sizes
        self.open, self.most_open, self.asked = 0, 0, list[int]()

    def ask(self, block: int) -> int:
        self.asked.append(block)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return block

    def take(self, ticket: int) -> Tensors:
        self.open -= 1
        if ticket in self.broken:
            raise BlockLostError("a picture is broken")
        rows = np.arange(self.firsts[ticket], self.firsts[ticket] + self.sizes[ticket])
        values = rows.astype(np.float16).reshape(-1, 1, 1, 1)
        return {"mean": values, "std": values + 1, "token_ids": rows.astype(np.int32).reshape(-1, 1)}


def loaded(blocks: Blocks, order: SampleOrder, share: Share, ahead: int = 4) -> list[tuple[list[int], list[int]]]:
    loader = OnlineLoader(blocks, order, blocks.sizes, share, ahead)
    return [(batch.positions.tolist(), batch.token_ids[:, 0].tolist()) for batch in loader]


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 200),
    lane_rows=st.integers(1, 4),
    lanes=st.sampled_from([1, 2, 4]),
    first=st.integers(0, 20),
    batches=st.integers(0, 20),
    ranks=st.sampled_from([1, 2, 4]),
    ahead=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_any_ranks_from_any_batch_see_the_order_of_the_seed(
    count: int, lane_rows: int, lanes: int, first: int, batches: int, ranks: int, ahead: int, seed: int
) -> None:
    size = 4 * lane_rows
    order = SampleOrder(count, seed, global_batch_size=size, block_rows=block_sizes(count), lanes=lanes)
    expected = order.rows(first * size, batches * size).tolist()
    found: dict[int, int] = {}
    for rank in range(ranks):
        share = Share(rank, ranks, first * size, (first + batches) * size)
        for positions, rows in loaded(Blocks(count), order, share, ahead):
            found |= dict(zip(positions, rows, strict=True))
    assert [found[position] for position in range(first * size, (first + batches) * size)] == expected


def test_no_more_blocks_are_asked_for_than_the_limit() -> None:
    blocks, size = Blocks(400), 16
    order = SampleOrder(400, 0, global_batch_size=size, block_rows=blocks.sizes)
    assert len(loaded(blocks, order, Share(0, 1, 0, 50 * size), ahead=3)) == 50
    assert blocks.most_open == 3


def test_a_trainer_that_stands_still_stops_the_asking() -> None:
    blocks, size = Blocks(4000), 16
    order = SampleOrder(4000, 0, global_batch_size=size, block_rows=blocks.sizes)
    batches = iter(OnlineLoader(blocks, order, blocks.sizes, Share(0, 1, 0, 200 * size), 5))
    next(batches)
    settled = -1
    while settled != len(blocks.asked):
        settled = len(blocks.asked)
        time.sleep(0.2)
    # The blocks in use, the batches put together ahead, and the limit: never the whole data set.
    assert settled <= kept_blocks(order, size) + 5 + 2 * size
    assert settled < len(blocks.sizes) / 4
    batches.close()  # type: ignore[attr-defined]


def test_what_a_rank_keeps_is_bounded_and_an_epoch_asks_for_a_block_about_once() -> None:
    sizes, size = block_sizes(2000), 16
    order = SampleOrder(2000, 1, global_batch_size=size, block_rows=sizes)
    slices = [(start, 8) for start in range(0, 2000, size)]
    held, most, asked = set[int](), 0, 0
    for need in schedule(order, sizes, slices, kept_blocks(order, 8)):
        held = (held - set(need.forgotten)) | set(need.missing)
        assert set(need.blocks.tolist()) <= held
        most, asked = max(most, len(held)), asked + len(need.missing)
    assert most <= kept_blocks(order, 8)
    assert asked <= 1.5 * len(sizes)


def test_a_block_that_cannot_be_made_is_named_counted_and_stood_in_for(capsys: pytest.CaptureFixture[str]) -> None:
    count, size = 16_000, 16
    blocks = Blocks(count, broken=frozenset({5}))
    order = SampleOrder(count, 0, global_batch_size=size, block_rows=blocks.sizes)
    loader = OnlineLoader(blocks, order, blocks.sizes, Share(0, 1, 0, count), 8)
    seen = np.concatenate([batch.token_ids[:, 0].numpy() for batch in loader])
    missing = set(range(count)) - set(seen.tolist())
    assert missing == set(range(5 * ROWS, 6 * ROWS)) and len(seen) == count
    assert loader.lost_samples == ROWS
    assert f"QUARANTINE block 5: a picture is broken; {ROWS} samples lost" in capsys.readouterr().out


def test_too_many_lost_samples_end_the_training() -> None:
    blocks = Blocks(80, broken=frozenset({5}))
    order = SampleOrder(80, 0, global_batch_size=16, block_rows=blocks.sizes)
    with pytest.raises(StepError, match="8 of 80 samples cannot be encoded"):
        loaded(blocks, order, Share(0, 1, 0, 80))


def test_an_encoders_error_reaches_training() -> None:
    class Lost(Blocks):
        def take(self, ticket: int) -> Tensors:
            raise StepError("encoder 3 was lost")

    order = SampleOrder(80, 0, global_batch_size=16, block_rows=block_sizes(80))
    with pytest.raises(StepError, match="encoder 3 was lost"):
        loaded(Lost(80), order, Share(0, 1, 0, 80))


@pytest.mark.parametrize("share", [Share(0, 3, 0, 16), Share(0, 1, 3, 16), Share(0, 1, 0, 17)])
def test_ranks_that_would_not_do_the_same_steps_are_refused(share: Share) -> None:
    order = SampleOrder(80, 0, global_batch_size=16, block_rows=block_sizes(80))
    with pytest.raises(ValueError, match=r"must divide among 3 ranks|are not batches of 16"):
        OnlineLoader(Blocks(80), order, block_sizes(80), share, 4)

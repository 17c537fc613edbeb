"""Blocks that are made meanwhile: the same batches as from a disk, in bounded memory, whatever the encoders' speed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.latents.block import BlockError, Field
from steps.data.latents.order import SampleOrder
from steps.data.loading.blocks import BlockRows, Blocks, Tensors
from steps.data.loading.loader import LatentsLoader, Share
from steps.data.loading.online import OnlineBlocks, online_loader
from steps.errors import StepError
from tests.steps.data.rows_of_order import rows_of

ROWS = 8
F16, I32 = np.dtype("<f2"), np.dtype("<i4")
FIELDS = (Field("mean", F16, (1, 1, 1)), Field("std", F16, (1, 1, 1)), Field("token_ids", I32, (1,)))


def block_sizes(count: int) -> np.ndarray:
    return np.array([min(ROWS, count - first) for first in range(0, count, ROWS)], np.int64)


class Made(Blocks):
    """Makes blocks whose mean is the number of the row; counts what is asked for and not yet taken."""

    lost = OnlineBlocks.lost

    def __init__(self, count: int, broken: frozenset[int] = frozenset(), delay_s: float = 0.0) -> None:
        sizes = block_sizes(count)
        super().__init__(BlockRows(sizes, np.zeros(len(sizes), np.int32)), [FIELDS], 0.001)
        self.broken, self.delay_s = broken, delay_s
        self.open, self.most_open, self.asked, self.counting = 0, 0, list[int](), threading.Lock()

    @contextmanager
    def read(self, block: int) -> Iterator[Tensors]:
        with self.counting:
            self.asked.append(block)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        time.sleep(self.delay_s)
        try:
            yield self._whole(block, self.make)
        finally:
            with self.counting:
                self.open -= 1

    def make(self, block: int) -> Tensors:
        if block in self.broken:
            raise BlockError("a picture is broken")
        rows = np.arange(self.table.first_rows[block], self.table.first_rows[block] + self.table.rows[block])
        values = rows.astype(np.float16).reshape(-1, 1, 1, 1)
        return {"mean": values, "std": values + 1, "token_ids": rows.astype(np.int32).reshape(-1, 1)}


def loaded(loader: LatentsLoader) -> list[tuple[list[int], list[int]]]:
    return [(batch.positions.tolist(), batch.token_ids[:, 0].tolist()) for batch in loader]


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 200),
    lane_rows=st.integers(1, 4),
    first=st.integers(0, 20),
    batches=st.integers(0, 20),
    ranks=st.sampled_from([1, 2, 4]),
    ahead=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_any_ranks_from_any_batch_see_the_order_of_the_seed(
    count: int, lane_rows: int, first: int, batches: int, ranks: int, ahead: int, seed: int
) -> None:
    size = 4 * lane_rows
    order = SampleOrder(count, seed, global_batch_size=size, block_rows=block_sizes(count))
    expected = rows_of(order, first * size, batches * size).tolist()
    found: dict[int, int] = {}
    for rank in range(ranks):
        share = Share(rank, ranks, first * size, (first + batches) * size)
        for positions, rows in loaded(online_loader(Made(count), seed, size, share, ahead)):
            found |= dict(zip(positions, rows, strict=True))
    assert [found[position] for position in range(first * size, (first + batches) * size)] == expected


def test_no_more_blocks_are_asked_for_at_a_time_than_the_limit() -> None:
    blocks, size = Made(400, delay_s=0.01), 16
    assert len(loaded(online_loader(blocks, 0, size, Share(0, 1, 0, 50 * size), 3))) == 50
    assert blocks.most_open == 3


def test_a_trainer_that_stands_still_stops_the_asking() -> None:
    blocks, size, ahead = Made(4000), 16, 5
    loader = online_loader(blocks, 0, size, Share(0, 1, 0, 200 * size), ahead)
    batches = iter(loader)
    next(batches)
    settled = -1
    while settled != len(blocks.asked):
        settled = len(blocks.asked)
        time.sleep(0.2)
    # The windows that its lanes are in and the blocks of the batches ahead: never the whole data set.
    order = loader.order.streams[0].order
    assert settled <= 2 * order.lanes * order.window_blocks + (loader.batches_ahead + 1) * size
    assert settled < len(blocks.table.rows) / 4
    batches.close()  # type: ignore[attr-defined]


def test_an_epoch_asks_for_a_block_about_once() -> None:
    blocks, size = Made(2000), 16
    loaded(online_loader(blocks, 1, size, Share(1, 2, 0, 2000), 4))
    assert len(blocks.asked) <= 1.5 * len(blocks.table.rows)


def test_a_block_that_cannot_be_made_is_named_counted_and_stood_in_for(capsys: pytest.CaptureFixture[str]) -> None:
    count, size = 16_000, 16
    blocks = Made(count, broken=frozenset({5}))
    loader = online_loader(blocks, 0, size, Share(0, 1, 0, count), 8)
    seen = [row for _, rows in loaded(loader) for row in rows]
    missing = set(range(count)) - set(seen)
    assert missing == set(range(5 * ROWS, 6 * ROWS)) and len(seen) == count
    assert loader.blocks.lost_rows == ROWS
    assert f"QUARANTINE block 5: a picture is broken; {ROWS} samples lost" in capsys.readouterr().out


def test_too_many_lost_samples_end_the_training() -> None:
    blocks = Made(80, broken=frozenset({5}))
    with pytest.raises(StepError, match="8 of 80 samples cannot be encoded"):
        loaded(online_loader(blocks, 0, 16, Share(0, 1, 0, 80), 4))


def test_an_encoders_error_reaches_training() -> None:
    class Lost(Made):
        def make(self, block: int) -> Tensors:
            raise StepError("encoder 3 was lost")

    with pytest.raises(StepError, match="encoder 3 was lost"):
        loaded(online_loader(Lost(80), 0, 16, Share(0, 1, 0, 80), 4))


@pytest.mark.parametrize("share", [Share(0, 3, 0, 16), Share(0, 1, 3, 16), Share(0, 1, 0, 17)])
def test_ranks_that_would_not_do_the_same_steps_are_refused(share: Share) -> None:
    with pytest.raises(ValueError, match=r"must divide among 3 ranks|are not batches of 16"):
        online_loader(Made(80), 0, 16, share, 4)


def test_a_job_without_an_encoder_is_refused() -> None:
    with pytest.raises(StepError, match="has no encoder"):
        OnlineBlocks([], block_sizes(80), FIELDS)

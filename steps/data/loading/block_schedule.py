"""Which blocks a rank needs for which of its batches, and which it may forget: a pure function of order and positions.

Reads nothing, writes nothing. A rank asks for blocks in this order, and keeps those that it used last: so what it has
in memory is bounded, and whoever makes the blocks knows beforehand what comes next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from steps.data.latents.order import Rows, SampleOrder


@dataclass(frozen=True)
class Need:
    """What one batch of a rank needs."""

    first_position: int
    """Of the training stream."""
    blocks: Rows
    """[rows]: block of each row."""
    places: Rows
    """[rows]: place of each row in its block."""
    missing: tuple[int, ...]
    """Blocks to be had before the batch, in order."""
    forgotten: tuple[int, ...]
    """Blocks that make room for them."""


def kept_blocks(order: SampleOrder, slice_rows: int) -> int:
    """Return how many blocks a rank has in use at once for `slice_rows` neighbouring rows of each global batch."""
    lane_rows = order.global_batch_size // order.lanes
    lanes = min(order.lanes, -(-slice_rows // lane_rows) + 1)
    # A lane holds one window; its border, and the seam of two epochs, can put another one into the same slice.
    return 2 * lanes * order.window_blocks


def schedule(order: SampleOrder, block_rows: Rows, slices: Iterable[tuple[int, int]], capacity: int) -> Iterator[Need]:
    """Yield what each slice (first position, rows) needs, with at most `capacity` blocks kept besides its own."""
    first_rows = np.cumsum(block_rows) - block_rows
    kept: OrderedDict[int, None] = OrderedDict()
    for first, count in slices:
        rows = order.rows(first, count)
        blocks = np.searchsorted(first_rows, rows, side="right") - 1
        # In the order in which the batch has them: the same on every machine.
        wanted = list(dict.fromkeys(blocks.tolist()))
        missing = tuple(block for block in wanted if block not in kept)
        for block in wanted:
            kept[block] = None
            kept.move_to_end(block)
        forgotten = tuple(kept.popitem(last=False)[0] for _ in range(len(kept) - max(capacity, len(wanted))))
        yield Need(first, blocks, rows - first_rows[blocks], missing, forgotten)

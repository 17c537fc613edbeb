"""The rows of an order by position, from the stretches of its lanes, which are what loaders read."""

import numpy as np

from steps.data.latents.order import Rows, SampleOrder
from steps.data.loading.bucket_order import TrainingOrder


def rows_of(order: SampleOrder, first: int, n: int) -> Rows:
    """Return the rows of positions [first, first + n)."""
    if not n:
        return np.empty(0, np.int64)
    size, last = order.global_batch_size, first + n - 1
    batches = range(first // size, last // size + 1)
    whole = len(batches) > 1
    lanes = range(order.lanes) if whole else range(first % size // order.lane_rows, last % size // order.lane_rows + 1)
    rows = np.full((len(batches), size), -1)
    for lane in lanes:
        for stretch in order.stretches(lane, batches.start):
            if stretch.batches[0] >= batches.stop:
                break
            near = stretch.batches < batches.stop
            places = stretch.batches[near] - batches.start, stretch.places[near]
            assert (rows[places] == -1).all()
            rows[places] = stretch.rows[near]
    found = rows.ravel()[first - batches.start * size :][:n]
    assert (found >= 0).all()
    return found


def training_rows(order: TrainingOrder, first: int, n: int) -> Rows:
    """Return the rows of positions [first, first + n) of a stream of several buckets."""
    size, parts, position = order.global_batch_size, [np.empty(0, np.int64)], first
    while position < first + n:
        batch, place = divmod(position, size)
        turn, stop = order.turn(batch), min(first + n, (batch + 1) * size)
        stream = order.streams[turn.stream]
        parts.append(rows_of(stream.order, turn.number * size + place, stop - position) + stream.first_row)
        position = stop
    return np.concatenate(parts)

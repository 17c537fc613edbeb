"""Tables of samples for tests, of shards that are nowhere."""

from __future__ import annotations

import numpy as np

from steps.data.samples import SampleTable


def table_of(index: int, captions: list[str]) -> SampleTable:
    """Return a table whose samples are 1,000 bytes each."""
    starts = np.arange(len(captions), dtype=np.int64) * 1000
    return SampleTable(
        name=f"{index:05d}.tar",
        keys=[f"{index:05d}{row:03d}" for row in range(len(captions))],
        captions=captions,
        starts=starts,
        stops=starts + 1000,
    )

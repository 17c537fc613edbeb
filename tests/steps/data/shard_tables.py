"""Tables of samples and of fates for tests, of shards that are nowhere."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steps.data.encoding.samples import SampleTable
from steps.data.shards import verification
from steps.data.storage import Storage


def table_of(index: int, captions: list[str], widths: Sequence[int] | None = None) -> SampleTable:
    """Return a table whose samples are 1,000 bytes each, and whose pictures 64 px high and, if not told, wide."""
    starts = np.arange(len(captions), dtype=np.int64) * 1000
    return SampleTable(
        name=f"{index:05d}.tar",
        keys=[f"{index:05d}{row:03d}" for row in range(len(captions))],
        captions=captions,
        starts=starts,
        stops=starts + 1000,
        xxh3=np.zeros(len(captions), np.uint64),
        widths=np.array([64] * len(captions) if widths is None else widths, dtype=np.int64),
        heights=np.full(len(captions), 64),
    )


def write_samples(
    storage: Storage,
    index: int,
    contents: Sequence[str],
    hashes: Sequence[int | None] | None = None,
    more: Mapping[str, pa.Array] = MappingProxyType({}),
) -> None:
    """Write a shard's table of samples, whose pictures and captions are these texts; `more` are further columns."""
    count = len(contents)
    table = pa.table(
        {
            "key": [f"{index:05d}{row:03d}" for row in range(count)],
            "caption": list(contents),
            "start": pa.array(range(count), pa.int64()),
            "stop": pa.array(range(1, count + 1), pa.int64()),
            "xxh3": pa.array([0] * count, pa.uint64()),
            "sha256": [hashlib.sha256(content.encode()).hexdigest() for content in contents],
            "perceptual_hash": pa.array(hashes or [None] * count, pa.uint64()),
            **more,
            "dropped": pa.nulls(count, pa.string()),
        }
    )
    verification.write_samples(storage, f"{index:05d}", table)


def write_fates(storage: Storage, index: int, rows: Sequence[tuple[str | None, str, str]], side_px: int = 300) -> None:
    """Write img2dataset's fate of every row: its cause (None: it is a sample), url and caption."""
    causes, urls, captions = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    status = ["success" if cause is None else "failed_to_download" for cause in causes]
    buffer = io.BytesIO()
    sides = pa.array([side_px if cause is None else None for cause in causes], pa.int32())
    columns = {"caption": captions, "url": urls, "status": status, "error_message": pa.array(causes, pa.string())}
    pq.write_table(pa.table({**columns, "original_width": sides, "original_height": sides}), buffer)
    storage.write(f"{index:05d}.parquet", buffer.getvalue())

"""The samples of verified shards: their captions from NNNNN.samples.parquet, and ranges of bytes of NNNNN.tar."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steps.data.latents.order import Rows
from steps.data.parquet import read_parquet
from steps.data.shards.shards_artifact import SAMPLES_SUFFIX
from steps.data.storage import Storage
from steps.data.tables.row_files import CAPTIONS
from steps.errors import StepError

# Samples nearer to each other than this are read with one request.
MERGED_GAP_BYTES: Final = 1 << 20
# But no more of them than this, whose bytes a reader holds at once.
REQUEST_BYTES: Final = 32 << 20


@dataclass(frozen=True)
class SampleTable:
    """The samples of one shard, in the order of their keys."""

    name: str
    """The tar."""
    keys: list[str]
    captions: list[str]
    starts: Rows
    """First byte of each sample's members."""
    stops: Rows
    """The byte after their last."""
    xxh3: npt.NDArray[np.uint64]
    """xxh3 of these bytes, as they were when the shard was verified."""
    widths: Rows
    """Of the pictures, in pixels; 0 where it is not known."""
    heights: Rows
    too_small_samples: int = 0
    """Samples that are left out because their originals were smaller than asked for."""
    first_captions: list[str] = field(default_factory=list)
    """The first caption of each sample's picture, where a picture may have several, and a sample each; else empty."""

    @property
    def named_by(self) -> list[str]:
        """The caption that stands in each sample's tar, and decides whether its picture is held out."""
        return self.first_captions or self.captions


class Sample(NamedTuple):
    key: str
    caption: str
    raw: bytes
    """The members as they lie in the tar."""
    picture_at: slice = slice(None)
    """Which of these bytes are the picture."""
    written: str = ""
    """The caption that Recaption wrote, where it did."""

    @property
    def picture(self) -> bytes:
        return self.raw[self.picture_at]


def read_table(storage: Storage, name: str, min_original_px: int = 0) -> SampleTable:
    """Return the samples of a shard that count, and whose originals' shorter side had so many pixels or is not known.

    Raises StepError where its table is not there, or has no checksums.
    """
    table_name = name.removesuffix(".tar") + SAMPLES_SUFFIX
    try:
        table = read_parquet(storage.read(table_name))
    except FileNotFoundError:
        what = "not there, but its shard is in the manifest"
        raise StepError(f"{storage.uri}/{table_name}: {what}; download again") from None
    if "xxh3" not in table.column_names:
        raise StepError(f"{storage.uri}/{table_name}: has no checksums (an earlier version's); download again")
    counted = table.filter(table["dropped"].is_null())
    shorter = np.minimum(_sides(counted, "original_width"), _sides(counted, "original_height"))
    large = counted.filter(pa.array((shorter >= min_original_px) | (shorter == 0)))
    table, captions = large, large["caption"]
    if has_several := CAPTIONS in table.column_names:
        # Each caption of a picture is a sample to train on.
        lists = table[CAPTIONS].combine_chunks()
        table, captions = table.take(pc.list_parent_indices(lists)), lists.flatten()
    return SampleTable(
        name=name,
        keys=table["key"].to_pylist(),
        captions=captions.to_pylist(),
        starts=table["start"].to_numpy(),
        stops=table["stop"].to_numpy(),
        xxh3=table["xxh3"].to_numpy(),
        widths=_sides(table, "width"),
        heights=_sides(table, "height"),
        too_small_samples=len(counted) - len(large),
        first_captions=table["caption"].to_pylist() if has_several else [],
    )


def _sides(table: pa.Table, name: str) -> Rows:
    """Return a column of sides; 0 where they are not known, as in shards of before they were noted."""
    if name not in table.column_names:
        return np.zeros(len(table), np.int64)
    sides: Rows = pc.fill_null(table[name], 0).to_numpy().astype(np.int64)
    return sides


def read_samples(storage: Storage, table: SampleTable, rows: Rows) -> Iterator[Sample]:
    """Yield samples of a shard, `rows` ascending. Raises StepError unless they are, to the bit, the table's."""
    try:
        for group in requests(table, rows):
            start = int(table.starts[group[0]])
            content = storage.read_range(table.name, start, int(table.stops[group[-1]]))
            for row in group.tolist():
                yield _sample(table, row, content[int(table.starts[row]) - start : int(table.stops[row]) - start])
    except (FileNotFoundError, tarfile.TarError, KeyError, ValueError) as error:
        what = f"not the shard that was verified ({type(error).__name__}: {error})"
        raise StepError(f"{storage.uri}/{table.name}: {what}; download again") from None


def requests(table: SampleTable, rows: Rows) -> Iterator[Rows]:
    """Yield those of ascending rows that are read with one request: neighbours, up to about REQUEST_BYTES of them."""
    gaps = table.starts[rows[1:]] - table.stops[rows[:-1]]
    for near in np.split(rows, np.flatnonzero(gaps > MERGED_GAP_BYTES) + 1):
        request = (table.starts[near] - table.starts[near[0]]) // REQUEST_BYTES
        yield from np.split(near, np.flatnonzero(np.diff(request)) + 1)


def _sample(table: SampleTable, row: int, raw: bytes) -> Sample:
    key, caption = table.keys[row], table.captions[row]
    if xxhash.xxh3_64_intdigest(raw) != int(table.xxh3[row]):
        raise ValueError(f"sample {key} does not match its checksum")
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        members = {one.name: slice(one.offset_data, one.offset_data + one.size) for one in tar}
    if raw[members[f"{key}.txt"]].decode("utf-8") != table.named_by[row]:
        raise ValueError(f"sample {key} has another caption")
    return Sample(key, caption, raw, members[f"{key}.jpg"])

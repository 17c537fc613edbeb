"""Reads a shard back, believes only what agrees, and writes NNNNN.samples.parquet.

img2dataset was measured to report success for shards of which a third was readable: members of the tar, success rows of
the parquet and successes in the statistics must be the same samples.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from steps.data.causes import from_message
from steps.data.parquet import read_parquet
from steps.data.pictures.picture_measures import PictureMeasures, measures_columns, treatments
from steps.data.shards.shards_artifact import SAMPLES_SUFFIX, VerifiedShard, shard_stem
from steps.data.storage import Storage
from steps.data.tables.row_files import CAPTIONS

_SUFFIXES = ("jpg", "json", "txt")


class UnverifiedShardError(Exception):
    """The shard's files do not agree, or one is missing."""


class TarSample(NamedTuple):
    """Where a sample lies in its tar, and what lies there."""

    start: int
    stop: int
    xxh3: int


TarSamples = dict[str, TarSample]
"""By key, in the order of the tar."""


def verify_shard(
    storage: Storage, index: int, rows: int, measured: Mapping[int, PictureMeasures] = MappingProxyType({})
) -> VerifiedShard:
    """Return what a shard holds, and write its table of samples; `measured` by row. Raises UnverifiedShardError."""
    stem = shard_stem(index)
    try:
        statistics: dict[str, Any] = json.loads(storage.read(f"{stem}_stats.json"))
        fates = read_parquet(storage.read(f"{stem}.parquet"))
        with storage.open(f"{stem}.tar") as stream:
            tar = HashingReader(stream)
            samples = read_tar(tar)
    except (FileNotFoundError, ValueError, tarfile.TarError, pa.ArrowException) as error:
        raise UnverifiedShardError(f"{stem}: {type(error).__name__}: {error}") from None
    is_kept = pa.compute.equal(fates["status"], "success")
    kept = fates.filter(is_kept)
    _compare(stem, rows, statistics, fates.num_rows, kept["key"].to_pylist(), samples)
    measures = [measured.get(place) for place in pa.compute.indices_nonzero(is_kept).to_pylist()]
    write_samples(storage, stem, _samples_table(kept, samples, measures))
    failed: Counter[str] = Counter()
    for message, count in statistics["status_dict"].items():
        if message != "success":
            failed[from_message(message)] += int(count)
    return VerifiedShard(
        name=f"{stem}.tar",
        rows=rows,
        samples=len(samples),
        bytes=tar.position,
        sha256=tar.hasher.hexdigest(),
        failed=dict(sorted(failed.items())),
        treated=treatments(measures),
        uncaptioned=pa.compute.sum(pa.compute.equal(kept["caption"], "")).as_py() or 0,
    )


def _compare(
    stem: str, rows: int, statistics: dict[str, Any], fates: int, kept: list[str], samples: TarSamples
) -> None:
    counted = sum(int(count) for count in statistics["status_dict"].values())
    if not rows == fates == statistics["count"] == counted:
        raise UnverifiedShardError(
            f"{stem}: {rows} rows, {fates} in the parquet, {statistics['count']} in the statistics, {counted} fates"
        )
    if len(kept) != statistics["successes"] or kept != list(samples):
        raise UnverifiedShardError(
            f"{stem}: {len(samples)} samples in the tar, {len(kept)} successes in the parquet, "
            f"{statistics['successes']} in the statistics"
        )


def _samples_table(kept: pa.Table, samples: TarSamples, measures: Sequence[PictureMeasures | None]) -> pa.Table:
    starts, stops, digests = zip(*samples.values(), strict=True) if samples else ((), (), ())
    several = {CAPTIONS: kept[CAPTIONS]} if CAPTIONS in kept.column_names else {}
    return pa.table(
        several
        | {
            "key": kept["key"],
            "caption": kept["caption"],
            "start": pa.array(starts, pa.int64()),
            "stop": pa.array(stops, pa.int64()),
            "xxh3": pa.array(digests, pa.uint64()),
            **{name: _side(kept, name) for name in ("width", "height", "original_width", "original_height")},
            "sha256": kept["sha256"],
            **measures_columns(measures),
            "dropped": pa.nulls(len(kept), pa.string()),
        }
    )


def _side(kept: pa.Table, name: str) -> pa.Array:
    """Return a side of the pictures, in pixels; null where the shard's writer does not tell."""
    if name not in kept.column_names:
        return pa.nulls(len(kept), pa.int32())
    return kept[name].cast(pa.int32())


def write_samples(storage: Storage, stem: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write(f"{stem}{SAMPLES_SUFFIX}", buffer.getvalue())


def read_tar(reader: "HashingReader") -> TarSamples:
    """Read a WebDataset tar to its end. Raises ValueError or tarfile.TarError where it ends early or lacks a member."""
    samples: dict[str, TarSample] = {}
    suffixes: dict[str, list[str]] = {}
    hasher, current = xxhash.xxh3_64(), ""
    while True:
        start = reader.position
        header = reader.read(tarfile.BLOCKSIZE)
        if header == bytes(tarfile.BLOCKSIZE):
            break
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        key, _, suffix = member.name.partition(".")
        content = reader.read(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if not member.size and suffix != "txt":
            raise ValueError(f"{member.name} is empty")
        if key != current:
            if key in samples:
                raise ValueError(f"sample {key} stands in two places")
            hasher, current = xxhash.xxh3_64(), key
            samples[key] = TarSample(start, start, 0)
        hasher.update(header)
        hasher.update(content)
        samples[key] = TarSample(samples[key].start, reader.position, hasher.intdigest())
        suffixes.setdefault(key, []).append(suffix)
    reader.drain()
    for key, parts in suffixes.items():
        if sorted(parts) != list(_SUFFIXES):
            raise ValueError(f"sample {key} has {', '.join(parts)}")
    return samples


class HashingReader:
    """A stream of which everything that was read is counted and hashed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.position, self.hasher = stream, 0, hashlib.sha256()

    def read(self, count: int) -> bytes:
        """Return so many bytes. Raises ValueError where there are fewer."""
        content = self._stream.read(count)
        if len(content) != count:
            raise ValueError(f"the tar ends at byte {self.position + len(content)}")
        self.hasher.update(content)
        self.position += count
        return content

    def drain(self) -> None:
        while content := self._stream.read(1 << 20):
            self.hasher.update(content)
            self.position += len(content)

"""A sample of what a data set holds, within bounds: of shards that Download made.

Reads, from S3 or a folder, a manifest, some tables of samples, some tables of fates and some pictures; writes nothing.
Captions and pictures come from outside: pictures are decoded within a limit of pixels and drawn anew, small.
"""

import io
import json
import math
import os
import struct
import tarfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from PIL import ExifTags, Image, ImageOps

from params.filters import FILTERS
from params.layout import MANIFEST_FILE, WRITTEN_CAPTIONS_SUFFIX
from params.s3 import split_uri, unless_missing
from pipeline_definition.errors import OperatorError

MAX_NAMES: Final = 200_000
MAX_SHARDS: Final = 8
MAX_ROWS: Final = 100_000
MAX_SHOWN: Final = 24
MAX_PAIRS: Final = 6
MAX_EXAMPLES: Final = 3
MAX_MEMBERS_BYTES: Final = 32 << 20
MAX_PIXELS: Final = 100_000_000
THUMBNAIL_PX: Final = 256
# Of EXIF's orientations those that exchange width and height.
_ON_THEIR_SIDE: Final = (5, 6, 7, 8)
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
# What Pillow raises for files that are damaged, by the format.
BROKEN: Final = (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, ArithmeticError, struct.error)
_READ: Final = [column for one in FILTERS if not one.measured for column in one.columns if column.kind == "number"]
SCORES: Final = tuple(name for column in _READ for name in column.published_as)
"""Columns that filters read, as published tables call them."""
Row = Mapping[str, Any]


class DataFiles(Protocol):
    """Files by name below one place."""

    def names(self) -> list[str]:
        """Return names in order, the first MAX_NAMES of them."""

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        """Return `count` bytes from `start`, or all; None where there is no such file or more than `limit` bytes."""


class DataFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return names in order; links are passed over."""
        names: list[str] = []
        for folder, folders, files in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (Path(folder) / name for name in files)
            names += [path.relative_to(self._folder).as_posix() for path in paths if not path.is_symlink()]
            if len(names) >= MAX_NAMES:
                break
        return sorted(names)[:MAX_NAMES]

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        path = (self._folder / name).resolve()
        is_inside = path.is_relative_to(self._folder.resolve()) and path.is_file()
        if not is_inside or (path.stat().st_size if count is None else count) > limit:
            return None
        with path.open("rb") as file:
            file.seek(start)
            return file.read(limit if count is None else count)


class DataPrefix:
    def __init__(self, client: Any, uri: str) -> None:
        self._client = client
        self._bucket, key = split_uri(uri)
        self._prefix = key.rstrip("/") + "/" if key.strip("/") else ""

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        keys = (item["Key"] for page in pages for item in page.get("Contents", ()))
        return [key[len(self._prefix) :] for key in islice(keys, MAX_NAMES)]

    def read(self, name: str, start: int = 0, count: int | None = None, limit: int = 256 << 20) -> bytes | None:
        span = {} if count is None else {"Range": f"bytes={start}-{start + count - 1}"}
        if count is not None and count > limit:
            return None
        answer = unless_missing(self._client.get_object, Bucket=self._bucket, Key=self._prefix + name, **span)
        if answer is None:
            return None
        content: bytes = answer["Body"].read(limit + 1)
        return None if len(content) > limit else content


@dataclass(frozen=True)
class ShownPicture:
    """One picture, small, as JPEG."""

    jpeg: bytes
    caption: str
    name: str
    written: str = ""
    """The caption that Recaption wrote."""


@dataclass(frozen=True)
class DataSample:
    """What the page shows, of the rows that were looked at."""

    manifest: Row = field(default_factory=dict)
    """Of shards or latents; empty for a folder."""
    pictures: tuple[ShownPicture, ...] = ()
    """Evenly from the whole set."""
    pairs: tuple[tuple[ShownPicture, ShownPicture], ...] = ()
    """Of copies: the one that counts, and the one that does not."""
    examples: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Of each cause: some (address, caption)."""
    captions: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Of a folder: captions of those that were looked at and would be kept."""
    sides: tuple[tuple[int, int], ...] = ()
    """Width and height of the originals, where they are known, else of the stored pictures."""
    rows: int = 0
    """How many were looked at; of a folder, how many pictures it has."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Of a folder: how many of those that were looked at Download would leave out, by cause."""
    least_px: int = 0
    """Shorter side that a folder's pictures need; 0: they were not judged by a parameter set."""
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By the name of the column."""


def sample_of_artifact(files: DataFiles, place: str, captions: DataFiles | None = None) -> DataSample | None:
    """Return a sample of shards, with written captions, or of latents; None: no manifest. Raises OperatorError."""
    content = files.read(MANIFEST_FILE)
    if content is None:
        return None
    manifest = None
    with suppress(ValueError, RecursionError):
        manifest = json.loads(content)
    if not isinstance(manifest, dict):
        raise OperatorError(f"{place}/{MANIFEST_FILE}: not a manifest")
    return _of_shards(files, manifest, captions) if "ledger" in manifest else DataSample(manifest=manifest)


def _of_shards(files: DataFiles, manifest: dict[str, Any], captions: DataFiles | None) -> DataSample:
    listed = manifest.get("shards")
    shards = listed if isinstance(listed, list) else ()
    names = [str(shard.get("name")) for shard in shards if isinstance(shard, dict)]
    rows: list[tuple[str, Row]] = []
    fates: list[Row] = []
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in spread(names, MAX_SHARDS):
        stem = name.removesuffix(".tar")
        written = parquet_rows(captions, f"{stem}{WRITTEN_CAPTIONS_SUFFIX}") if captions else []
        texts = {row.get("key"): row.get("caption") for row in written}
        read = parquet_rows(files, f"{stem}.samples.parquet")
        rows += [(name, {**row, "written": texts.get(row.get("key"))}) for row in read]
        for row in parquet_rows(files, f"{stem}.parquet", ("status", "error_message", "url", "caption", *SCORES)):
            fates.append(row)
            cause = str(row.get("error_message") or "")
            if row.get("status") != "success" and len(examples[cause]) < MAX_EXAMPLES:
                examples[cause].append((str(row.get("url") or ""), str(row.get("caption") or "")))
        if len(rows) > MAX_ROWS:
            break
    kept = [(name, row) for name, row in rows if not row.get("dropped")]
    return DataSample(
        manifest=manifest,
        pictures=tuple(_shown(files, spread(kept, MAX_SHOWN))),
        pairs=tuple(islice(_pairs(files, rows), MAX_PAIRS)),
        examples={cause: tuple(some) for cause, some in sorted(examples.items()) if cause and some},
        captions=tuple(str(row.get("caption") or "") for _, row in kept),
        sides=tuple((_px(row, "width"), _px(row, "height")) for _, row in kept),
        rows=len(rows),
        scores=scores_of([*(row for _, row in kept), *(row for row in fates if row.get("status") == "success")]),
    )


def scores_of(rows: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    """Return the numbers that published columns of scores hold."""
    scores: dict[str, tuple[float, ...]] = {}
    for name in SCORES:
        held: list[Any] = [row.get(name) for row in rows]
        if numbers := tuple(float(one) for one in held if type(one) in (int, float) and math.isfinite(one)):
            scores[name] = numbers
    return scores


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` items, evenly from first to last."""
    if len(items) <= count:
        return list(items)
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def parquet_rows(files: DataFiles, name: str, columns: Sequence[str] | None = None) -> list[Row]:
    """Return the first rows of a parquet file, of these columns alone; none where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = files.read(name)
    if content is None:
        return []
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        wanted = [column for column in columns or file.schema_arrow.names if column in file.schema_arrow.names]
        rows: list[Row] = next(file.iter_batches(MAX_ROWS, columns=wanted)).to_pylist()
    except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError):
        return []
    return rows


def _px(row: Row, side: str) -> int:
    length = row.get(f"original_{side}") or row.get(side)
    return length if isinstance(length, int) else 0


def _pairs(files: DataFiles, rows: Sequence[tuple[str, Row]]) -> Iterator[tuple[ShownPicture, ShownPicture]]:
    first: dict[Any, tuple[str, Row]] = {}
    for name, row in (one for one in rows if not one[1].get("dropped")):
        for key in (row.get("sha256"), row.get("perceptual_hash")):
            if key is not None:
                first.setdefault(key, (name, row))
    for name, row in rows:
        other = first.get(row.get("sha256")) or first.get(row.get("perceptual_hash"))
        if row.get("dropped") and other:
            pair = list(_shown(files, [other, (name, row)]))
            if len(pair) == 2:
                yield pair[0], pair[1]


def _shown(files: DataFiles, rows: Sequence[tuple[str, Row]]) -> Iterator[ShownPicture]:
    for name, row in rows:
        start, stop = row.get("start"), row.get("stop")
        if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop):
            continue
        content = files.read(name, start, stop - start, MAX_MEMBERS_BYTES)
        if small := small_picture(_member(content or b"", ".jpg")):
            caption, key, written = (str(row.get(name) or "") for name in ("caption", "key", "written"))
            yield ShownPicture(small.jpeg, caption, key, written)


def _member(content: bytes, suffix: str) -> bytes:
    """Return a member of a piece of a tar, whose headers end at multiples of a block."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content + bytes(2 * tarfile.BLOCKSIZE)), mode="r:") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(suffix):
                    stream = tar.extractfile(member)
                    return stream.read() if stream else b""
    except (tarfile.TarError, OSError, ValueError):
        pass
    return b""


class SmallPicture(NamedTuple):
    """A picture, small, and the sides of the original."""

    jpeg: bytes
    width: int
    height: int


def small_picture(content: bytes, is_upright: bool = False) -> SmallPicture | None:
    """Return a picture as it lies, or turned as its EXIF orientation says; None where it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    return None
                if is_upright and picture.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THEIR_SIDE:
                    width, height = height, width
                picture.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
                shown: Image.Image = ImageOps.exif_transpose(picture) if is_upright else picture
                shown.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
                buffer = io.BytesIO()
                shown.convert("RGB").save(buffer, "JPEG", quality=80)
                return SmallPicture(buffer.getvalue(), width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *BROKEN):
        return None

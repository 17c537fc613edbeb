"""Pictures that one has already: existing WebDataset shards, or a folder of pictures with their captions.

Reads a folder or prefix; writes nothing. What it finds is a table whose addresses are names of files, or
`<tar>#<first byte>-<byte after the last>`, so that filters, shards and the ledger work as they do for the web's.

A picture's caption is, in a folder, its line of metadata.jsonl (`file_name` and `text` or `caption`, as Hugging Face's
imagefolder has it: https://huggingface.co/docs/datasets/image_dataset#imagefolder), else the .txt beside it; in shards,
the sample's .txt, else `caption` of its .json. Further fields of metadata.jsonl and .json are columns, for the filters.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, Final, cast

import fsspec
import pyarrow as pa

from steps.data.causes import Cause
from steps.data.fetch import FetchError
from steps.data.picture import refusal
from steps.data.row_files import BATCH_ROWS, CAPTION, URL
from steps.data.storage import Storage
from steps.errors import StepError

PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
METADATA_FILE: Final = "metadata.jsonl"
CAPTION_KEYS: Final = ("text", CAPTION)
READERS: Final = 16
MAX_TEXT_BYTES: Final = 1 << 20
"""Of a caption, its facts, or a header of a tar: more is nothing that a sample has."""
_BLOCK_BYTES: Final = 1 << 20
_PLACE = re.compile(r"(.+\.tar)#([0-9]+)-([0-9]+)")

Row = dict[str, Any]


class StoredRows:
    """The table of what is stored: an address and a caption for each picture, and numbers and texts beside them."""

    def __init__(self, rows: list[Row], digest: str) -> None:
        self.rows, self.digest = len(rows), digest
        columns = [URL, CAPTION, *sorted({name for row in rows for name in row} - {URL, CAPTION})]
        self.names = tuple(columns)
        self._table = pa.table({name: _column([row.get(name) for row in rows]) for name in columns})

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns."""
        yield from self._table.select(list(columns)).to_batches(BATCH_ROWS)


def _column(values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def open_folder(uri: str) -> StoredRows:
    """Return the pictures under a folder, in the order of their names.

    Raises StepError where there is none, or none has a caption.
    """
    storage, sizes = Storage(uri), _names(uri)
    pictures = [name for name in sizes if name.lower().endswith(PICTURES)]
    if not pictures:
        raise StepError(f"url_table: no picture ({', '.join(PICTURES)}) under {uri}")
    facts = _metadata(storage, sizes)
    texts = {name.rsplit(".", 1)[0]: name for name in sizes if name.lower().endswith(".txt")}
    beside = {name: texts[stem] for name in pictures if (stem := name.rsplit(".", 1)[0]) in texts and name not in facts}
    contents = storage.read_many(sorted(set(beside.values())))
    rows = []
    for name in pictures:
        row = dict(facts.get(name, {}))
        if name in beside:
            row[CAPTION] = contents[beside[name]].decode("utf-8", "replace").strip()
        rows.append({**row, URL: name})
    captions = hashlib.sha256(json.dumps([row.get(CAPTION) for row in rows]).encode()).hexdigest()
    if not any(row.get(CAPTION) for row in rows):
        raise StepError(f"url_table: no picture under {uri} has a caption in {METADATA_FILE} or in a .txt beside it")
    return StoredRows(rows, _digest({name: sizes[name] for name in pictures}, captions))


def _metadata(storage: Storage, names: Mapping[str, Any]) -> dict[str, Row]:
    """Return what the metadata.jsonl of every folder says of its pictures."""
    facts: dict[str, Row] = {}
    for file in (name for name in names if name.rsplit("/", 1)[-1] == METADATA_FILE):
        folder = file[: -len(METADATA_FILE)]
        for number, line in enumerate(storage.read(file).decode("utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row: Row = json.loads(line)
                name = folder + str(row.pop("file_name"))
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                raise StepError(f"url_table: {storage.uri}/{file} line {number}: has no file_name") from None
            facts[name] = _facts(row)
    return facts


def _facts(row: Row) -> Row:
    """Return what a JSON object says of a picture: its caption, numbers and texts."""
    plain = {name: value for name, value in row.items() if isinstance(value, (str, int, float))}
    caption = next((str(plain[key]) for key in CAPTION_KEYS if key in plain), None)
    own = {name: value for name, value in plain.items() if name not in (*CAPTION_KEYS, URL)}
    return own if caption is None else {**own, CAPTION: caption}


def open_shards(uri: str) -> StoredRows:
    """Return the pictures in the WebDataset tars under a prefix. Reads every tar once, many at a time.

    Raises StepError where there is no tar, or one cannot be read.
    """
    sizes = _names(uri)
    tars = [name for name in sizes if name.endswith(".tar")]
    if not tars:
        raise StepError(f"url_table: no .tar under {uri}")
    with ThreadPoolExecutor(READERS) as threads:
        found = list(threads.map(partial(_tar_rows, uri), tars))
    rows = [row for part in found for row in part]
    if not rows:
        raise StepError(f"url_table: no tar under {uri} has a picture with a key ({', '.join(PICTURES)})")
    facts = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return StoredRows(rows, _digest({name: sizes[name] for name in tars}, facts))


def _tar_rows(uri: str, name: str) -> list[Row]:
    samples: dict[str, Row] = {}
    try:
        with (
            Storage(uri).open(name, _BLOCK_BYTES) as stream,
            tarfile.open(fileobj=cast(BinaryIO, _BoundedStream(stream)), mode="r:") as tar,
        ):
            for member in tar:
                folder, slash, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                if member.isfile() and stem:
                    row = samples.setdefault(folder + slash + stem, {})
                    _read_member(tar, member, f".{suffix.lower()}", name, row)
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise StepError(f"url_table: {uri}/{name}: {type(error).__name__}: {error}") from None
    return [row for row in samples.values() if URL in row]


class _BoundedStream:
    """A stream that refuses to read much at once: tarfile holds a whole extended header in memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TEXT_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._read(size)


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, name: str, row: Row) -> None:
    if suffix in PICTURES:
        row[URL] = f"{name}#{member.offset_data}-{member.offset_data + member.size}"
        return
    if suffix not in (".txt", ".json"):
        return
    if member.size > MAX_TEXT_BYTES:
        raise ValueError(f"{member.name} has {member.size} bytes, and at most {MAX_TEXT_BYTES} are read")
    content = tar.extractfile(member)
    text = "" if content is None else content.read().decode("utf-8", "replace")
    if suffix == ".txt":
        row[CAPTION] = text.strip()
        return
    facts = json.loads(text)
    if isinstance(facts, dict):
        # A caption of its own wins over that of the .json, whichever comes first.
        row.update({key: value for key, value in _facts(facts).items() if not (key == CAPTION and CAPTION in row)})


def _names(uri: str) -> dict[str, int]:
    """Return every file under a folder with its size, by its path below it, in the order of names."""
    files, root = fsspec.core.url_to_fs(uri.rstrip("/"))
    try:
        found = files.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    start = len(str(root).rstrip("/")) + 1
    return {path[start:]: int(entry["size"]) for path, entry in sorted(found.items())}


def _digest(sizes: Mapping[str, int], facts: str) -> str:
    """Return a digest of names, sizes and captions: pictures that change without a trace of these go unnoticed."""
    return hashlib.sha256(json.dumps([sizes, facts], sort_keys=True).encode()).hexdigest()


class StoredPictures:
    """Hands out stored pictures as a Fetcher does the web's: whole and bounded. Safe for threads."""

    def __init__(self, uri: str, max_body_bytes: int) -> None:
        self._storage, self._max_bytes = Storage(uri), max_body_bytes

    def fetch(self, address: str) -> bytes:
        """Return a picture. Raises FetchError."""
        place = _PLACE.fullmatch(address)
        try:
            content = self._read(address) if place is None else self._read_range(*place.groups())
        except FileNotFoundError:
            raise FetchError(Cause.MISSING) from None
        cause = refusal(content)
        if cause is not None:
            raise FetchError(cause)
        return content

    def _read(self, name: str) -> bytes:
        stream: BinaryIO
        with self._storage.open(name, _BLOCK_BYTES) as stream:
            content = stream.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise FetchError(Cause.BODY_TOO_LARGE)
        return content

    def _read_range(self, name: str, start: str, stop: str) -> bytes:
        if int(stop) - int(start) > self._max_bytes:
            raise FetchError(Cause.BODY_TOO_LARGE)
        return self._storage.read_range(name, int(start), int(stop))

"""Data of one's own as `--data` names them: a folder, a table or an s3:// address, looked at before they are used.

Reads names, captions, tables and some pictures; writes nothing. A data set's name ends in a digest of its content: a
folder that has changed is another data set, for the step cache as well.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from params.files import file_digest
from params.layout import CAPTION_FILES, METADATA_FILES, PICTURES, TARS
from params.programs import DownloadSettings
from params.s3 import SCHEME, join_uri, split_uri
from pipeline_definition.artifacts.data_sample import DataFiles, DataFolder, DataPrefix, DataSample, Row
from pipeline_definition.artifacts.folder_sample import caption_in, is_debris, rows_of, sample_of, sample_of_judged
from pipeline_definition.errors import UsageError

TABLES: Final = (".parquet", ".csv", ".tsv", ".jsonl")
URLS, WEBDATASET, STORED = "urls", "webdataset", "pictures"
OWN: Final = "own"
# Columns as published tables name them, in lower case.
URL_COLUMNS: Final = ("url", "image_url", "link", "image_link", "src")
CAPTION_COLUMNS: Final = ("caption", "text", "prompt", "top_caption", "alt_text", "title", "description")
DIGEST_LETTERS: Final = 8


@dataclass(frozen=True)
class OwnData:
    place: str
    name: str
    """Of its artifacts."""
    source: str
    columns: Mapping[str, str]
    """url_column and caption_column of download, where they are not the defaults."""
    sample: DataSample
    uri: str = ""
    """Where it lies, if that is in S3."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """What is to be uploaded, by name; empty where it lies in S3."""
    digests: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Files that Download does not read, by the end of their names."""

    @property
    def usable(self) -> int:
        """About how many pictures Download will keep, from those that were looked at."""
        looked_at = len(self.sample.captions)
        return self.sample.rows * len(self.sample.kept) // looked_at if looked_at else self.sample.rows

    def uri_in(self, bucket: str) -> str:
        """Return where it lies or will lie: what data.url_table is to be."""
        return self.uri or join_uri(f"{SCHEME}{bucket}", OWN, self.name, "")


def own_data(place: str, settings: DownloadSettings, client: Any, name: str = "") -> OwnData:
    """Look at data. `settings` are what pictures are judged by, `client` is boto3's, for s3:// addresses."""
    if place.startswith(SCHEME):
        return _in_s3(place, settings, client)
    path = Path(place)
    if not path.exists():
        raise UsageError(f"--data: there is no {place}; name a folder, a table ({', '.join(TABLES)}) or s3://...")
    folder = path if path.is_dir() else path.parent
    files = DataFolder(folder)
    names = files.names() if path.is_dir() else [path.name]
    own, read = _looked_at(place, files, names, settings)
    digests = {one: file_digest(folder / one) for one in read}
    return replace(
        own,
        name=name or _name(path.resolve().stem, digests.items()),
        files={one: folder / one for one in read},
        digests=digests,
        passed_over=Counter(Path(one).suffix.lower() or one for one in set(names) - set(read)),
    )


def _in_s3(uri: str, settings: DownloadSettings, client: Any) -> OwnData:
    bucket, key = split_uri(uri, UsageError)
    listed = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    tags = {item["Key"]: item["ETag"] for page in listed for item in page.get("Contents", ())}
    prefix = key.rpartition("/")[0] if key in tags else key.rstrip("/")
    start = len(prefix) + 1 if prefix else 0
    below = {one[start:]: tag for one, tag in tags.items() if one == key or one.startswith(prefix + "/") or not prefix}
    names = sorted(one for one in below if one and not one.endswith("/") and not is_debris(one))
    if not names:
        raise UsageError(
            f"--data: nothing lies under {uri} in the S3 that this command talks to; "
            f"for a bucket in AWS: aws s3 sync {uri} ./data, then --data ./data"
        )
    own, _ = _looked_at(uri, DataPrefix(client, f"{SCHEME}{bucket}/{prefix}"), names, settings)
    return replace(own, name=_name(Path(key).stem or bucket, sorted(below.items())), uri=uri)


def _looked_at(
    place: str, files: DataFiles, names: Sequence[str], settings: DownloadSettings
) -> tuple[OwnData, list[str]]:
    """Return what can be said of data before they have a name, and the files that Download reads."""
    source = _source(place, files, names)
    read = [one for one in names if not is_debris(one) and _is_read(one, source)]
    if source == WEBDATASET:
        return OwnData(place, "", source, {}, DataSample()), read
    if any(one.lower().endswith(PICTURES) for one in read):
        return OwnData(place, "", source, {}, sample_of(files, place, settings)), read
    rows = [row for one in read for row in rows_of(files, one)]
    if not rows:
        raise UsageError(f"--data: no row of {place} can be read: it is empty, damaged, or larger than 256 MB")
    keys = sorted({str(key) for row in rows[:1000] for key in row})
    columns = {"caption_column": _column(place, "caption", CAPTION_COLUMNS, keys, settings.caption_column)}
    if source == URLS:
        columns["url_column"] = _column(place, "url", URL_COLUMNS, keys, settings.url_column)
    changed = {key: value for key, value in columns.items() if value != key.removesuffix("_column")}
    return OwnData(place, "", source, changed, sample_of_judged(list(_judged(rows, columns)))), read


def _source(place: str, files: DataFiles, names: Sequence[str]) -> str:
    """Return what Download is to take data for."""
    ends = [one.lower() for one in names]
    if any(end.endswith(PICTURES) for end in ends):
        return STORED
    if any(end.endswith(TARS) for end in ends):
        return WEBDATASET
    tables = [one for one in names if one.lower().endswith(TABLES)]
    if not tables:
        some = ", ".join(sorted({Path(one).suffix or one for one in names})[:8]) or "nothing"
        raise UsageError(
            f"--data: {place} has neither pictures ({', '.join(PICTURES[:4])}, ...) nor .tar shards nor a table "
            f"({', '.join(TABLES)}); it has {some}"
        )
    first = next(iter(rows_of(files, tables[0])), {})
    return STORED if any(isinstance(value, dict) and "bytes" in value for value in first.values()) else URLS


def _is_read(name: str, source: str) -> bool:
    if source == STORED:
        is_metadata = name.rsplit("/", 1)[-1] in METADATA_FILES
        return is_metadata or name.lower().endswith((*PICTURES, *CAPTION_FILES, ".parquet"))
    return name.lower().endswith(TARS if source == WEBDATASET else TABLES)


def _column(place: str, what: str, known: Sequence[str], keys: Sequence[str], asked: str) -> str:
    for name in (asked.lower(), *known):
        if named := next((key for key in keys if key.lower() == name), None):
            return named
    raise UsageError(f"--data: {place} has no column {what!r}; it has {', '.join(keys)[:300]}; rename one to {what!r}")


def _judged(rows: Sequence[Row], columns: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the address, the caption and the cause of each row of a table."""
    seen: set[str] = set()
    for row in rows:
        caption, cause = caption_in(row, [columns["caption_column"]]), ""
        url = str(row.get(columns["url_column"]) or "").strip() if "url_column" in columns else None
        if not caption:
            cause = "no_caption"
        elif url is not None and not re.match("https?://", url, re.IGNORECASE):
            cause = "refused_scheme" if url else "no_url"
        elif url in seen:
            cause = "duplicate"
        elif url is not None:
            seen.add(url)
        yield url or "", caption, cause


def _name(stem: str, content: Any) -> str:
    digest = hashlib.sha256(repr(list(content)).encode()).hexdigest()[:DIGEST_LETTERS]
    return f"{re.sub('[^a-zA-Z0-9]+', '-', stem).strip('-')[:40] or 'data'}-{digest}"

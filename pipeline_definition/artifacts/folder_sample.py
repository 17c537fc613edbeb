"""A sample of a folder of pictures, within bounds, and what Download would leave out of it.

Reads some pictures with their captions, and the metadata of their folders; writes nothing.
"""

import contextlib
import csv
import hashlib
import html
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np

from params.filters.published import AspectRatio, LongCaption, ShortCaption, TooSmall
from params.layout import CAPTION_FILES, MANIFEST_FILE, METADATA_FILES, PICTURES
from params.programs import DownloadSettings
from pipeline_definition.artifacts import data_sample
from pipeline_definition.artifacts.data_sample import DataFiles, DataSample, Row, ShownPicture, SmallPicture, spread
from pipeline_definition.artifacts.folder import parsed_lines
from pipeline_definition.errors import OperatorError

MAX_LOOKED_AT: Final = 480
UNDECODED: Final = (".heic", ".heif", ".jxl")
"""Pictures that Download reads with a package of their own, and this sample does not."""


def sample_of(
    files: DataFiles, place: str, settings: DownloadSettings | None = None, captions: DataFiles | None = None
) -> DataSample:
    """Return a sample; by `settings` a folder's pictures are judged."""
    return data_sample.sample_of_artifact(files, place, captions) or _of_folder(files, place, settings)


def _of_folder(files: DataFiles, place: str, settings: DownloadSettings | None) -> DataSample:
    names = files.names()
    pictures = [name for name in names if name.lower().endswith(PICTURES) and not is_debris(name)]
    if not pictures:
        raise OperatorError(
            f"{place}: neither a {MANIFEST_FILE} (of finished shards or latents) nor a picture; name the prefix of "
            "shards or latents, or a folder of pictures"
        )
    facts, known = _metadata(files, names), set(names)
    names = spread(pictures, MAX_LOOKED_AT)
    to_show = set(spread(names, data_sample.MAX_SHOWN))
    judged: list[tuple[str, str, str]] = []
    shown: list[ShownPicture] = []
    sides: list[tuple[int, int]] = []
    kept: set[bytes] = set()
    for name in names:
        caption = caption_in(facts.get(name, {})) or _caption_beside(files, name, known)
        content = files.read(name, limit=data_sample.MAX_MEMBERS_BYTES) or b""
        small, digest = data_sample.small_picture(content, is_upright=True), hashlib.sha256(content).digest()
        if small:
            sides.append((small.width, small.height))
            if name in to_show:
                shown.append(ShownPicture(small.jpeg, caption, name))
        cause = next(_causes(name, caption, small, digest in kept, settings), "")
        if not cause:
            kept.add(digest)
        judged.append((name, caption, cause))
    return replace(
        sample_of_judged(judged),
        pictures=tuple(shown),
        sides=tuple(sides),
        rows=len(pictures),
        least_px=TooSmall.from_settings(settings).least_px if settings else 0,
        scores=data_sample.scores_of([facts.get(name, {}) for name in names]),
    )


def sample_of_judged(rows: Sequence[tuple[str, str, str]]) -> DataSample:
    """Return a sample of (name, caption, cause): why Download would leave a row out; empty: it would not."""
    examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, caption, cause in rows:
        if cause:
            examples[cause].append((name, caption))
    return DataSample(
        captions=tuple(caption for _, caption, _ in rows),
        kept=tuple(caption for _, caption, cause in rows if not cause),
        rows=len(rows),
        left_out={cause: len(some) for cause, some in examples.items()},
        examples={cause: tuple(some[: data_sample.MAX_EXAMPLES]) for cause, some in sorted(examples.items())},
    )


def _causes(
    name: str, caption: str, small: SmallPicture | None, is_copy: bool, settings: DownloadSettings | None
) -> Iterator[str]:
    """Yield why Download would leave a picture out, in its own order and words."""
    if not caption and not (settings and settings.keep_uncaptioned):
        yield "no_caption"
    if settings and caption:
        for limit in (ShortCaption.from_settings(settings), LongCaption.from_settings(settings)):
            if limit.is_on and not limit.keeps(np.array([len(caption)]))[0]:
                yield limit.cause
    if small is None:
        if not name.lower().endswith(UNDECODED):
            yield "corrupt"
        return
    if settings:
        for shape in (TooSmall.from_settings(settings), AspectRatio.from_settings(settings)):
            if not shape.keeps(np.array([small.width]), np.array([small.height]))[0]:
                yield shape.cause
    if is_copy:
        yield "duplicate_picture"


def is_debris(name: str) -> bool:
    """Whether a name is what systems leave beside pictures, which Download passes over."""
    return any(part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in name.split("/"))


def _caption_beside(files: DataFiles, name: str, names: set[str]) -> str:
    stems = (name.rsplit(".", 1)[0], name)
    beside = (stem + suffix for stem in stems for suffix in reversed(CAPTION_FILES) if stem + suffix in names)
    contents = ((files.read(file, limit=1 << 20) or b"").decode("utf-8", "replace") for file in beside)
    return next(filter(None, (html.unescape(content).strip() for content in contents)), "")


def _metadata(files: DataFiles, names: Sequence[str]) -> dict[str, Row]:
    facts: dict[str, Row] = {}
    for kind in METADATA_FILES:
        for file in (name for name in names if name.rsplit("/", 1)[-1] == kind):
            for row in rows_of(files, file):
                facts.setdefault(file[: -len(kind)] + str(row.get("file_name")), row)
    return facts


def rows_of(files: DataFiles, name: str) -> list[Row]:
    """Return the first rows of a table: parquet, CSV, TSV or JSON Lines; none of what is no table."""
    if name.lower().endswith(".parquet"):
        return data_sample.parquet_rows(files, name)
    content = files.read(name) or b""
    if name.lower().endswith(".jsonl"):
        return list(parsed_lines(content, data_sample.MAX_ROWS))
    text = io.StringIO(content.decode("utf-8-sig", "replace"), newline="")
    lines = csv.DictReader(text, delimiter="\t" if name.lower().endswith(".tsv") else ",")
    with contextlib.suppress(csv.Error):
        return list(islice(lines, data_sample.MAX_ROWS))
    return []


def caption_in(row: Row, keys: Sequence[str] = ("text", "caption", "prompt")) -> str:
    """Return the caption of a row, the first of a list, as it is stored: trimmed, entities of HTML undone."""
    text = next((row[key] for key in keys if row.get(key)), "")
    return html.unescape(str(text[0] if isinstance(text, list) else text)).strip()

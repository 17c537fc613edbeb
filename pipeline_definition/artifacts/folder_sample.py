"""A sample of a folder of pictures, within bounds, and what Download would leave out of it.

Reads some pictures with their captions, and metadata.jsonl; writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from params.filters.published import AspectRatio, LongCaption, ShortCaption, TooSmall
from params.layout import MANIFEST_FILE
from params.programs import DownloadSettings
from pipeline_definition.artifacts.data_files import DataFiles
from pipeline_definition.artifacts.data_sample import (
    MAX_EXAMPLES,
    MAX_MEMBERS_BYTES,
    MAX_ROWS,
    MAX_SHOWN,
    DataSample,
    Row,
    ShownPicture,
    SmallPicture,
    sample_of_artifact,
    scores_of,
    small_picture,
    spread,
)
from pipeline_definition.errors import OperatorError

MAX_LOOKED_AT: Final = 480
PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".jfif")


def sample_of(files: DataFiles, place: str, settings: DownloadSettings | None = None) -> DataSample:
    """Return a sample; by `settings` a folder's pictures are judged.

    Raises OperatorError where there is neither a manifest nor a picture.
    """
    return sample_of_artifact(files, place) or _of_folder(files, place, settings)


def _of_folder(files: DataFiles, place: str, settings: DownloadSettings | None) -> DataSample:
    names = files.names()
    pictures = [name for name in names if name.lower().endswith(PICTURES) and not _is_debris(name)]
    if not pictures:
        raise OperatorError(
            f"{place}: neither a {MANIFEST_FILE} (of finished shards or latents) nor a picture; name the prefix of "
            "shards or latents, or a folder of pictures"
        )
    facts, known = _metadata(files, names), set(names)
    names = spread(pictures, MAX_LOOKED_AT)
    captions = [_caption_in(facts.get(name, {})).strip() or _caption_beside(files, name, known) for name in names]
    look = _Look(settings, frozenset(spread(names, MAX_SHOWN)))
    for name, caption in zip(names, captions, strict=True):
        look.at(name, caption, files.read(name, limit=MAX_MEMBERS_BYTES) or b"")
    return DataSample(
        pictures=tuple(look.shown),
        captions=tuple(captions),
        sides=tuple(look.sides),
        rows=len(pictures),
        left_out=look.left_out,
        least_px=TooSmall.of(settings).least_px if settings else 0,
        examples={cause: tuple(some) for cause, some in sorted(look.examples.items())},
        scores=scores_of([facts.get(name, {}) for name in names]),
    )


class _Look:
    """What was seen of a folder's pictures until now."""

    def __init__(self, settings: DownloadSettings | None, to_show: frozenset[str]) -> None:
        self._settings, self._to_show = settings, to_show
        self._digests: set[bytes] = set()
        self.shown: list[ShownPicture] = []
        self.sides: list[tuple[int, int]] = []
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def at(self, name: str, caption: str, content: bytes) -> None:
        """Look at one picture."""
        small, digest = small_picture(content, is_upright=True), hashlib.sha256(content).digest()
        if small:
            self.sides.append((small.width, small.height))
            if name in self._to_show:
                self.shown.append(ShownPicture(small.jpeg, caption, name))
        cause = next(_causes(caption, small, digest in self._digests, self._settings), None)
        if cause is None:
            self._digests.add(digest)
            return
        self.left_out[cause] += 1
        if len(self.examples[cause]) < MAX_EXAMPLES:
            self.examples[cause].append((name, caption))


def _causes(
    caption: str, small: SmallPicture | None, is_copy: bool, settings: DownloadSettings | None
) -> Iterator[str]:
    """Yield why Download would leave a picture out, in its own order and words."""
    if not caption and not (settings and settings.keep_uncaptioned):
        yield "no_caption"
    if settings and caption:
        length = np.array([len(caption)])
        for limit in (ShortCaption, LongCaption):
            judge = limit.of(settings)
            if judge.is_on and not judge.keeps(length)[0]:
                yield limit.cause
    if small is None:
        yield "corrupt"
        return
    if settings:
        for kind in (TooSmall, AspectRatio):
            if not kind.of(settings).keeps(np.array([small.width]), np.array([small.height]))[0]:
                yield kind.cause
    if is_copy:
        yield "duplicate_picture"


def _is_debris(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _caption_beside(files: DataFiles, name: str, names: set[str]) -> str:
    stem = name.rsplit(".", 1)[0]
    for file in (f"{stem}.txt", f"{stem}.caption"):
        if file in names:
            return (files.read(file, limit=1 << 20) or b"").decode("utf-8", "replace").strip()
    return ""


def _metadata(files: DataFiles, names: Sequence[str]) -> dict[str, Row]:
    facts: dict[str, Row] = {}
    for file in (name for name in names if name.rsplit("/", 1)[-1] == "metadata.jsonl"):
        folder = file[: -len("metadata.jsonl")]
        for line in (files.read(file) or b"").decode("utf-8", "replace").split("\n")[:MAX_ROWS]:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                facts[folder + str(row.get("file_name"))] = row
    return facts


def _caption_in(row: Row) -> str:
    text = next((row[key] for key in ("text", "caption", "prompt") if row.get(key)), "")
    return str(text[0] if isinstance(text, list) else text)

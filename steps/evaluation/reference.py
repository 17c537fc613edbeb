"""The real pictures and captions that training never saw.

Reads the reference artifact: manifest.json and the WebDataset shards (jpg, txt, json) that it lists. Captions are held
in memory, pictures are read when they are asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from params.layout import MANIFEST_FILE
from steps.errors import StepError

Pictures = npt.NDArray[np.uint8]

_PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class _Entry:
    shard: Path
    offset: int
    size: int
    name: str


class Reference:
    """Held-out pictures, by row, in the order of their shards."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest and the shards' tables of content.

        Raises StepError where the manifest or a shard is missing or damaged, or no picture is there.
        """
        manifest = folder / MANIFEST_FILE
        if not manifest.is_file():
            raise StepError(f"{manifest}: not there; evaluate needs the held-out pictures that encode writes")
        content = manifest.read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        self.captions: list[str] = []
        self._entries: list[_Entry] = []
        try:
            described = json.loads(content)
            self.size_px = int(described["resolution_px"])
            names = [str(shard["name"]) for shard in described["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StepError(f"{manifest}: not the manifest of a reference: {error!r}") from None
        for name in names:
            self._index(folder / name)
        if not self._entries:
            raise StepError(f"{manifest}: holds no pictures; raise encode.heldout_fraction or max_heldout_samples")

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, rows: Sequence[int]) -> Pictures:
        """Return pictures, (N, H, W, 3) uint8; one of another size is cut to the square and resized."""
        return np.stack([self._picture(self._entries[row]) for row in rows])

    def _index(self, shard: Path) -> None:
        if not shard.is_file():
            raise StepError(f"{shard}: the manifest lists it, but it is not there; run encode again")
        try:
            with tarfile.open(shard, "r:") as tar:
                for key, members in _samples(tar):
                    self._add(shard, tar, key, members)
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise StepError(f"{shard}: cannot be read: {error}") from None

    def _add(self, shard: Path, tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo]) -> None:
        picture = next((members[suffix] for suffix in _PICTURE_SUFFIXES if suffix in members), None)
        caption = tar.extractfile(members["txt"]) if "txt" in members else None
        if picture is None or caption is None:
            raise StepError(f"{shard}: sample {key} lacks its picture or its caption")
        self.captions.append(caption.read().decode("utf-8").strip())
        self._entries.append(_Entry(shard, picture.offset_data, picture.size, picture.name))

    def _picture(self, entry: _Entry) -> Pictures:
        with entry.shard.open("rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
        try:
            with Image.open(io.BytesIO(content)) as image:
                picture = image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise StepError(f"{entry.shard}: {entry.name} cannot be decoded: {error}") from None
        if picture.size != (self.size_px, self.size_px):
            picture = ImageOps.fit(picture, (self.size_px, self.size_px), Image.Resampling.LANCZOS)
        return np.asarray(picture)


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield key and members by suffix: WebDataset keeps the members of a sample side by side."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in tar:
        if not member.isreg():
            continue
        next_key, _, suffix = member.name.partition(".")
        if next_key != key and members:
            yield key, members
            members = {}
        key = next_key
        members[suffix.lower()] = member
    if members:
        yield key, members

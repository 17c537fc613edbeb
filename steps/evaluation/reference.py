"""The real pictures and captions that training never saw.

Reads the reference artifact: manifest.json and the WebDataset shards (jpg, txt, json) that it lists. Captions are held
in memory; pictures are read on request.
"""

import hashlib
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from params.layout import MANIFEST_FILE
from steps.data.encoding.buckets import Size
from steps.data.encoding.decoding import decode
from steps.data.encoding.samples import Sample
from steps.errors import StepError

Pictures = npt.NDArray[np.uint8]


class Reference:
    """Held-out pictures, by row, in the order of their shards."""

    def __init__(self, folder: Path) -> None:
        """Read manifest and tables of content. Raises StepError where one is missing or damaged, or has no pictures."""
        manifest = folder / MANIFEST_FILE
        if not manifest.is_file():
            raise StepError(f"{manifest}: missing; evaluate needs the held-out pictures that encode writes")
        content = manifest.read_bytes()
        self.digest = hashlib.sha256(content).hexdigest()
        self.captions: list[str] = []
        self._entries: list[tuple[Path, tarfile.TarInfo]] = []
        try:
            listing = json.loads(content)
            self.size_px = int(listing["resolution_px"])
            names = [str(shard["name"]) for shard in listing["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StepError(f"{manifest}: not the manifest of a reference: {error!r}") from None
        for name in names:
            self._index(folder / name)
        if not self._entries:
            raise StepError(f"{manifest}: holds no pictures; raise encode.heldout_fraction or max_heldout_samples")

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, rows: Sequence[int]) -> Pictures:
        """Return pictures, (N, H, W, 3) uint8; one of another size is cropped to a square and resized."""
        return np.stack([self._picture(*self._entries[row]) for row in rows])

    def _index(self, shard: Path) -> None:
        if not shard.is_file():
            raise StepError(f"{shard}: the manifest lists it, but it is missing; run encode again")
        try:
            with tarfile.open(shard, "r:") as tar:
                for key, members in _samples(tar):
                    picture = members.get("jpg")
                    caption = tar.extractfile(members["txt"]) if "txt" in members else None
                    if picture is None or caption is None:
                        raise StepError(f"{shard}: sample {key} lacks its picture or its caption")
                    self.captions.append(caption.read().decode("utf-8").strip())
                    self._entries.append((shard, picture))
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise StepError(f"{shard}: cannot be read: {error}") from None

    def _picture(self, shard: Path, member: tarfile.TarInfo) -> Pictures:
        with shard.open("rb") as file:
            file.seek(member.offset_data)
            sample = Sample(f"{shard}: {member.name}", "", file.read(member.size))
        return decode(sample, Size(self.size_px, self.size_px))


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield each sample's key and its members by suffix: WebDataset stores the members of a sample together."""
    files = (member for member in tar if member.isreg())
    for key, members in itertools.groupby(files, lambda member: member.name.partition(".")[0]):
        yield key, {member.name.partition(".")[2].lower(): member for member in members}

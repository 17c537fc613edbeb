"""Keeps generated pictures on disk, so that they are not generated again.

Writes <folder>/<index>.png and <folder>/generation.json, which records what decided how the pictures look; pictures of
any other generation are deleted. With a mirror, a prefix that outlives the job, each batch is copied there too, and a
job on a new host resumes from it.
"""

import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from params.files import PARTIAL, write_bytes
from steps.artifact import Identity, print_differences, to_text
from steps.data.storage import Storage
from steps.evaluation.reference import Pictures

PICTURE_PATTERN: Final = "{index:06d}.png"
GENERATION_FILE: Final = "generation.json"
POLL_S: Final = 5.0
READ_TOGETHER: Final = 256


class PictureStore:
    """The pictures of one model under one setting."""

    def __init__(self, folder: Path, generation: Identity, mirror: str = "") -> None:
        """Open the folder; pictures that another `generation` decided are deleted. `mirror` is its own prefix."""
        self.folder = folder
        self._mirror = Storage(mirror) if mirror else None
        text = to_text(generation)
        stated = folder / GENERATION_FILE
        before = stated.read_text(encoding="utf-8") if stated.is_file() else ""
        if before != text:
            print_differences(folder, before, generation)
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("[0-9]*.png"):
                path.unlink()
            write_bytes(stated, text.encode())

    def path(self, index: int) -> Path:
        return self.folder / PICTURE_PATTERN.format(index=index)

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Return the indices whose pictures are yet to be generated."""
        present = {entry.name for entry in os.scandir(self.folder)}
        return [index for index in indices if self.path(index).name not in present]

    def write(self, indices: Sequence[int], pictures: Pictures) -> None:
        for index, picture in zip(indices, pictures, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            write_bytes(self.path(index), buffer.getvalue())
            if self._mirror:
                self._mirror.write(self.path(index).name, buffer.getvalue())

    def read(self, indices: Sequence[int]) -> Pictures:
        """Return pictures, (N, H, W, 3) uint8."""
        return np.stack([_decode(self.path(index)) for index in indices])

    def restore(self, indices: Sequence[int]) -> None:
        """Fetch the missing pictures that the mirror holds."""
        if self._mirror is None:
            return
        mirrored = self._mirror.sizes()
        names = [self.path(index).name for index in self.missing(indices)]
        wanted = [name for name in names if name in mirrored]
        for start in range(0, len(wanted), READ_TOGETHER):
            for name, content in self._mirror.read_many(wanted[start : start + READ_TOGETHER]).items():
                write_bytes(self.folder / name, content)

    def tidy(self) -> None:
        """Delete half-written files of killed workers; call it once no worker writes any more."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink()

    def wait(self, indices: Sequence[int], report: Callable[[], None], poll_s: float = POLL_S) -> None:
        """Return when the mirror has other hosts' pictures; one that fails ends the job. Calls `report` meanwhile."""
        while self.missing(indices):
            self.restore(indices)
            report()
            if self.missing(indices):
                time.sleep(poll_s)


def _decode(path: Path) -> Pictures:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))

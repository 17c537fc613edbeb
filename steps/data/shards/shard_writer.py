"""img2dataset's WebDataset writer, with three changes.

- Samples stand in the order of the table, not in that in which their servers answered, and carry no time of day: the
  same pictures give the same bytes, so a resumed download equals an unbroken one, and a range of samples is a range of
  bytes.
- A failed write makes the shard fail. In img2dataset the exception is printed for that sample, the upload goes on
  without the part, and the shard counts as a success with a third of it readable.
- A shard that failed is abandoned: its multipart upload is aborted, not completed by the garbage collector.
"""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

from fsspec.spec import AbstractBufferedFile

# albumentations, which img2dataset imports, looks for updates over the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # img2dataset still uses imghdr
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.downloader import Downloader
    from img2dataset.writer import WebDatasetSampleWriter

__all__ = ["BoundingBoxBlurrer", "Downloader", "OrderedShardWriter"]

Row = tuple[bytes | None, str, str | None, dict[str, Any]]


class OrderedShardWriter(WebDatasetSampleWriter):  # type: ignore[misc]
    """Writes one shard. Rows wait in memory until those before them have come."""

    on_row: Callable[[], None] = staticmethod(lambda: None)
    """Called for every row; the process that counts progress sets it."""

    def __init__(self, shard_id: int, output_folder: str, *rest: Any) -> None:
        super().__init__(shard_id, output_folder, *rest)
        self.tarwriter.mtime = 0
        self._waiting: dict[int, Row] = {}
        self._next = 0
        self._problem: Exception | None = None

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Take one row; `img_str` is None where it failed."""
        type(self).on_row()
        self._waiting[self._position(key)] = (img_str, key, caption, meta)
        while self._problem is None and self._next in self._waiting:
            self._put(self._waiting.pop(self._next))
            self._next += 1

    def close(self) -> None:
        """Finish the shard. Raises what went wrong while it was written."""
        for position in sorted(self._waiting):
            if self._problem is None:
                self._put(self._waiting[position])
        if self._problem is not None:
            self.abandon()
            raise self._problem
        super().close()

    def abandon(self) -> None:
        """Drop the shard: nothing of it appears."""
        for stream in (self.tar_fd, self.buffered_parquet_writer.output_fd):
            if isinstance(stream, AbstractBufferedFile) and not stream.closed:
                stream.discard()
                stream.closed = True
                # Both writers put their ends into it when they are garbage-collected, if not before.
                stream.write = len
        for writer in (self.buffered_parquet_writer.parquet_writer, self.tarwriter):
            with contextlib.suppress(Exception):
                writer.close()
        self.buffered_parquet_writer.parquet_writer = None

    def _put(self, row: Row) -> None:
        try:
            super().write(*row)
        except Exception as error:
            self._problem = error

    def _position(self, key: str) -> int:
        """Return the row's place in the shard: img2dataset's keys are the shard's number, then the row's."""
        shard_digits = max(self.oom_shard_count, len(str(self.shard_id)))
        return int(key[shard_digits:] or 0)

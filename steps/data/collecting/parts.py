"""Work on more rows than memory holds: records in parts by the first bits of a number, and a byte for each row.

Reads and writes files without a name in the folder for temporary ones (TMPDIR): they end with the process, however it
ends. Memory for a part, and for what waits to be written, is the same whatever the number of rows.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from steps.errors import StepError

Records = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

PART_BITS: Final = 20
"""Of rows' numbers in a part of them; HASH_PART_BITS: of the number of records in a part by a hash."""
HASH_PART_BITS: Final = 18
MOST_HASH_BITS: Final = 11
"""Beyond so many bits, parts grow rather than become more: the pieces in which they are read would be too small."""
HELD_BYTES: Final = 16 << 20
"""Of records that wait to be written."""


def _temporary_file(owner: object) -> Any:
    """Return a file that is closed when its owner is no longer there."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    weakref.finalize(owner, file.close)
    return file


def require_room(needed_bytes: int) -> None:
    """Raise StepError where the folder for temporary files has not so much free."""
    if needed_bytes > (free := shutil.disk_usage(folder := tempfile.gettempdir()).free):
        raise StepError(
            f"TMPDIR: {folder} has {free >> 30} GiB free, and comparing so many rows takes up to {needed_bytes >> 30}; "
            "set download.job.volume_size_gb higher by what is missing, or TMPDIR to a larger disk"
        )


def hash_shift(rows: int) -> int:
    """Return by how many bits hashes of so many rows are shifted to give the numbers of parts."""
    return 64 - min(max(1, (rows >> HASH_PART_BITS).bit_length()), MOST_HASH_BITS)


class SpilledParts:
    """Records by the number that each is added under; those of a part stay in the order in which they came."""

    def __init__(self, kind: Any, shift: int = PART_BITS) -> None:
        """A part holds the records, of a NumPy type, whose numbers are the same but for their last `shift` bits."""
        self._kind, self.shift = np.dtype(kind), shift
        self._file = _temporary_file(self)
        self._waiting: list[tuple[npt.NDArray[np.uint16], Records]] = []
        self._waiting_bytes = self._end = 0
        self._edges: list[tuple[int, npt.NDArray[np.uint32]]] = []

    def __len__(self) -> int:
        """Return how many parts there are, empty ones among them."""
        self._write()
        return max((len(edges) - 1 for _, edges in self._edges), default=0)

    def __iter__(self) -> Iterator[Records]:
        return map(self.part, range(len(self)))

    def add(self, numbers: npt.NDArray[Any], records: Records) -> None:
        """Add records under these numbers, of 64 bits without a sign."""
        parts = (numbers.astype(np.uint64) >> np.uint64(self.shift)).astype(np.uint16)
        self._waiting.append((parts, records))
        self._waiting_bytes += records.nbytes
        if self._waiting_bytes >= HELD_BYTES:
            self._write()

    def part(self, index: int) -> Records:
        """Return a part; it may be changed, and put back."""
        self._write()
        pieces = [os.pread(self._file.fileno(), size, start) for start, size in self._places(index)]
        return np.frombuffer(bytearray().join(pieces), self._kind)

    def put(self, index: int, records: Records) -> None:
        """Replace the records of a part by as many."""
        content = memoryview(records.tobytes())
        for start, size in self._places(index):
            os.pwrite(self._file.fileno(), content[:size], start)
            content = content[size:]

    def _places(self, index: int) -> Iterator[tuple[int, int]]:
        """Yield where a part's pieces begin in the file, and their sizes, in bytes."""
        for start, edges in self._edges:
            if index + 1 < len(edges) and (count := int(edges[index + 1] - edges[index])):
                yield start + int(edges[index]) * self._kind.itemsize, count * self._kind.itemsize

    def _write(self) -> None:
        if not self._waiting:
            return
        parts, records = map(np.concatenate, zip(*self._waiting, strict=True))
        content = records.take(np.argsort(parts, kind="stable"))
        os.pwrite(self._file.fileno(), content.data, self._end)
        self._edges.append((self._end, np.r_[0, np.cumsum(np.bincount(parts))].astype(np.uint32)))
        self._end += content.nbytes
        self._waiting, self._waiting_bytes = [], 0


class RowBytes:
    """A byte for each row, 0 at first; what is looked at is mapped for as long as one has it."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._file = _temporary_file(self)
        self._file.truncate(max(1, rows))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return some rows' bytes, to be read or set."""
        first, stop, _ = rows.indices(self._rows)
        return np.memmap(self._file, np.uint8, "r+", first, (max(0, stop - first),))

    def windows(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield the first row and the bytes of each part that SpilledParts of rows have."""
        size = 1 << PART_BITS
        yield from ((first, self[first : first + size]) for first in range(0, self._rows, size))

    def counts(self) -> Rows:
        """Return how many rows have each of the 256 values."""
        return sum((np.bincount(part, minlength=256) for _, part in self.windows()), np.zeros(256, np.int64))


def shared(numbers: npt.NDArray[np.uint64]) -> Rows:
    """Return the places, ascending, of all numbers that stand in several, and of few others.

    Sorts numbers with their places in the last bits: several times faster than an argsort.
    """
    low = np.uint64((1 << len(numbers).bit_length()) - 1)
    order = np.sort(numbers & ~low | np.arange(len(numbers), dtype=np.uint64))
    is_same = (order[1:] ^ order[:-1]) <= low
    either = np.zeros(len(order), np.bool_)
    either[1:] = is_same
    either[:-1] |= is_same
    return np.sort((order[either] & low).astype(np.int64))

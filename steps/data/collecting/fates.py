"""What became of the rows that were fetched, whichever table and settings asked for them.

Reads NNNNN.parquet, img2dataset's fate of every row of a shard; writes nothing. A row is known by its address and its
caption: the same row of a longer table, or under another threshold, is not fetched again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from html import unescape
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from params.filters import FILTERS
from steps.data.causes import Cause, can_pass, from_message
from steps.data.parquet import read_parquet
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.limits import Limits, laxer
from steps.data.shards.shards_artifact import shard_stem
from steps.data.storage import Storage

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

SHARDS_AT_ONCE: Final = 64
SUCCESS: Final = "success"
_COLUMNS: Final = ["url", "caption", "status", "error_message", "original_width", "original_height"]
# Release 0.1.0 listed rows in its shards that the table alone left out: they were not fetched.
_NOT_FETCHED: Final = frozenset([Cause.NO_URL, Cause.DUPLICATE, *(one.cause for one in FILTERS if not one.measured)])


def row_key(url: str | None, caption: str | None) -> int:
    """Return 64 bits by which a row is known, however its caption is spelled in HTML."""
    text = f"{(url or '').strip()}\0{unescape(caption or '').strip()}"
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, eq=False)
class Fates:
    """The fates of rows in one shard or in many, in the order of the shards."""

    keys: Keys
    numbers: Rows
    causes: npt.NDArray[np.object_]
    """Why a row is no sample, or SUCCESS."""
    is_reopened: Mask
    """Whether it was refused by a limit that is laxer now."""
    widths: Rows
    """Of the pictures as they came, in pixels; 0 where it is not known."""
    heights: Rows
    is_blocked_host: Mask
    """Whether the blocklist has the host of the address."""

    @property
    def is_sample(self) -> Mask:
        """Whether the row became a sample."""
        return np.asarray(self.causes == SUCCESS)

    @property
    def may_pass(self) -> Mask:
        """Whether it may be another at another time."""
        return np.array([cause != SUCCESS and can_pass(cause) for cause in self.causes], np.bool_)


_NO_FATES: Final = Fates(
    *(np.empty(0, kind) for kind in (np.uint64, np.int64, object, np.bool_, np.int64, np.int64, np.bool_))
)


@dataclass
class FateBook:
    """The fates of shards, each of which is read once."""

    storage: Storage
    limits: Limits
    """Of now."""
    blocklist: Blocklist
    """Of now."""
    by_caption: bool
    """Whether rows are known by their captions, too; of a picture with all of several, its address alone tells it."""
    _shards: dict[int, Fates] = field(default_factory=dict)

    def fates(self, made_with: Mapping[int, Limits]) -> Fates:
        """Return the fates of these shards; `made_with` has the limits under which each was made."""
        missing = [number for number in sorted(made_with) if number not in self._shards]
        for start in range(0, len(missing), SHARDS_AT_ONCE):
            names = {f"{shard_stem(number)}.parquet": number for number in missing[start : start + SHARDS_AT_ONCE]}
            for name, content in self.storage.read_many(list(names)).items():
                number = names[name]
                reopened = laxer(self.limits, made_with[number])
                self._shards[number] = _fates(number, content, reopened, self)
        parts = [_NO_FATES, *(self._shards[number] for number in sorted(made_with))]
        return Fates(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Fates)))


def _fates(number: int, content: bytes, reopened: frozenset[str], book: FateBook) -> Fates:
    table = read_parquet(content, _COLUMNS)
    columns = {name: table[name].to_pylist() for name in _COLUMNS}
    pairs = zip(columns["status"], columns["error_message"], strict=True)
    causes = np.array([SUCCESS if status == SUCCESS else from_message(message) for status, message in pairs], object)
    is_fetched = np.array([cause not in _NOT_FETCHED for cause in causes], np.bool_)
    blocked = [bool(book.blocklist.hosts) and book.blocklist.has_host(url or "") for url in columns["url"]]
    rows = zip(columns["url"], columns["caption"], strict=True)
    keys = [row_key(url, caption if book.by_caption else None) for url, caption in rows]
    return Fates(
        keys=np.array(keys, np.uint64)[is_fetched],
        numbers=np.full(int(is_fetched.sum()), number, np.int64),
        causes=causes[is_fetched],
        is_reopened=np.array([cause in reopened for cause in causes], np.bool_)[is_fetched],
        widths=np.array([side or 0 for side in columns["original_width"]], np.int64)[is_fetched],
        heights=np.array([side or 0 for side in columns["original_height"]], np.int64)[is_fetched],
        is_blocked_host=np.array(blocked, np.bool_)[is_fetched],
    )


class RowFates:
    """The fates of a table's rows."""

    def __init__(self, keys: Keys, fates: Fates) -> None:
        """`keys` are the table's, in its order."""
        self.fates = fates
        # A success is the last word on a row, else what the latest shard has.
        order = np.lexsort((fates.numbers, fates.is_sample, fates.keys))
        in_order = fates.keys[order]
        first, end = np.searchsorted(in_order, keys), np.searchsorted(in_order, keys, side="right")
        self.tries: Rows = end - first
        """How often each row was fetched."""
        self.last: Rows = np.full(len(keys), -1)
        """Of each row: the place of its last fate in `fates`; -1 where it was never fetched."""
        is_tried = self.tries > 0
        self.last[is_tried] = order[end[is_tried] - 1]
        self.earlier_tries: Rows = np.empty(len(order), np.int64)
        """Of each fate: how often its row had been fetched before."""
        self.earlier_tries[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)

    def ended_in(self, is_so: Mask) -> Mask:
        """Return the rows whose last fate is one of these."""
        return (self.last >= 0) & is_so[self.last] if len(is_so) else np.zeros(len(self.last), np.bool_)

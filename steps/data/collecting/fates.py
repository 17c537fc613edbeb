"""What became of the rows that were fetched, whichever table and settings asked for them.

Reads NNNNN.parquet, img2dataset's fate of every row of a shard; writes nothing. A row is known by its address and its
caption: the same row of a longer table, or under another threshold, is not fetched again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from html import unescape
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from params.filters import FILTERS, Filter
from steps.data.causes import Cause, can_pass, from_message
from steps.data.collecting.parts import Records, SpilledParts
from steps.data.collecting.spread import spread
from steps.data.collecting.text_hashes import text_hashes
from steps.data.parquet import read_parquet
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.limits import Limits, laxer
from steps.data.shards.shards_artifact import shard_stem
from steps.data.storage import Storage
from steps.data.tables.text_column import replaced

Keys = npt.NDArray[np.uint64]
_Judged = tuple[int, Sequence[Filter], frozenset[str]]
"""A shard: its number, what judges sizes there, and the causes that refused rows which are let through now."""

SHARDS_AT_ONCE: Final = 64
SUCCESS: Final = "success"
MARKS: Final = (None, *map(str, Cause), *(one.cause for one in FILTERS))
"""Why a sample does not count, or a row of the table alone is left out, by the number that stands for it in a byte."""
NUMBER_SHIFT: Final = 32
FATE: Final = np.dtype([("key", "u8"), ("place", "u8"), ("cause", "u2"), ("is_reopened", "?"), ("mark", "u1")])
"""A fetched row. `place`: the number of its shard, and in the last NUMBER_SHIFT bits the row there; `cause`: in the
book's causes; `is_reopened`: it was refused by a limit that is laxer now; `mark`: why its picture does not count, as
far as its address and size tell."""
NO_URL_HASH: Final = text_hashes(pa.array([""]), 0)[0]
_COLUMNS: Final = ["url", "caption", "status", "error_message", "original_width", "original_height"]
# Release 0.1.0 listed rows in its shards that the table alone left out: they were not fetched.
_NOT_FETCHED: Final = (Cause.NO_URL, Cause.DUPLICATE, *(one.cause for one in FILTERS if not one.measured))


def row_keys(urls: Any, captions: Any | None) -> tuple[Keys, Keys]:
    """Return 64 bits of each address, and those by which its row is known, however its caption is spelled in HTML.

    Both are pyarrow arrays of strings; without captions the address alone is the row's key.
    """
    of_urls = _hashes(urls, 0)
    if captions is None:
        return of_urls, of_urls
    return of_urls, of_urls ^ _hashes(replaced(captions, unescape, b"&"), 1)


def _hashes(texts: Any, seed: int) -> Keys:
    return text_hashes(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), seed)


class FateBook:
    """The fates of shards, each of which is read once."""

    def __init__(
        self,
        storage: Storage,
        blocklist: Blocklist,
        by_caption: bool,
        shift: int,
        filters: Callable[[int], Sequence[Filter]],
    ) -> None:
        """`filters` judge the sizes of a shard's pictures; its number tells which. `shift` is that of the table's rows.

        Without `by_caption`, of a picture with all of several captions, a row's address alone tells it.
        """
        self._storage, self._blocklist, self._by_caption, self._filters = storage, blocklist, by_caption, filters
        self.parts = SpilledParts(FATE, shift)
        """By the hash of the address."""
        self.causes: list[str] = [SUCCESS]
        """Why a row is no sample, by the number in its fate; 0: it is one."""
        self.shards: set[int] = set()
        """Numbers of those that were read."""

    @property
    def can_pass(self) -> npt.NDArray[np.bool_]:
        """Whether a row may have another fate at another time, by cause."""
        return np.array([cause != SUCCESS and can_pass(cause) for cause in self.causes], np.bool_)

    def read(self, now: Limits, made_with: Mapping[int, Limits], numbers: Collection[int]) -> None:
        """Take in the shards that are not there yet; `made_with` has the limits under which each was made."""
        missing = sorted(set(numbers) - self.shards)
        self.shards.update(missing)
        judged = [(number, self._filters(number), laxer(now, made_with[number])) for number in missing]
        told = (self._storage, self._blocklist, self._by_caption)
        pieces = ((*told, judged[start : start + SHARDS_AT_ONCE]) for start in range(0, len(judged), SHARDS_AT_ONCE))
        for hashes, fates, causes in spread(_read, pieces):
            self.causes += sorted(set(causes) - set(self.causes))
            known = np.array(fates)
            known["cause"] = np.array([self.causes.index(cause) for cause in causes])[fates["cause"]]
            self.parts.add(hashes, known)


def _read(
    storage: Storage, blocklist: Blocklist, by_caption: bool, shards: Sequence[_Judged]
) -> tuple[Keys, Records, list[str]]:
    """Return the hashes of addresses and FATE of the rows of some shards, and the causes that are numbered there."""
    causes, found = [SUCCESS], list[tuple[Keys, Records]]()
    contents = storage.read_many([f"{shard_stem(number)}.parquet" for number, _, _ in shards])
    for number, filters, reopened in shards:
        table = read_parquet(contents[f"{shard_stem(number)}.parquet"], _COLUMNS)
        captions = table["caption"].cast(pa.string()).combine_chunks() if by_caption else None
        hashes, keys = row_keys(table["url"].cast(pa.string()).combine_chunks(), captions)
        fates = np.empty(len(keys), FATE)
        fates["key"] = keys
        fates["place"] = (number << NUMBER_SHIFT) + np.arange(len(keys), dtype=np.uint64)
        fates["cause"] = _causes(table, causes)
        fates["is_reopened"] = np.isin(fates["cause"], _numbers(reopened, causes))
        fates["mark"] = _marks(table, filters, blocklist)
        is_fetched = ~np.isin(fates["cause"], _numbers(_NOT_FETCHED, causes))
        found.append((hashes[is_fetched], fates[is_fetched]))
    hashes, fates = map(np.concatenate, zip(*found, strict=True))
    return hashes, fates, causes


def _marks(table: Any, filters: Sequence[Filter], blocklist: Blocklist) -> npt.NDArray[np.uint8]:
    sides = [pc.fill_null(table[name].cast(pa.int64()), 0).to_numpy() for name in ("original_width", "original_height")]
    marks = np.zeros(len(table), np.uint8)
    for one in filters:
        marks[~np.asarray(one.keeps(*sides)) & (sides[0] > 0) & (marks == 0)] = MARKS.index(one.cause)
    if blocklist.hosts:
        is_blocked = [blocklist.has_host(url or "") for url in table["url"].to_pylist()]
        marks[np.array(is_blocked, np.bool_)] = MARKS.index(Cause.BLOCKED_HOST)
    return marks


def _causes(table: Any, known: list[str]) -> npt.NDArray[np.int64]:
    """Return the places of rows' causes among the known ones, to which new ones are added."""
    is_sample = pc.equal(table["status"], SUCCESS)
    messages = pc.if_else(is_sample, SUCCESS, table["error_message"]).combine_chunks().dictionary_encode()
    causes = [one if one == SUCCESS else from_message(one) for one in messages.dictionary.to_pylist()]
    known += sorted(set(causes) - set(known))
    numbers = np.array([known.index(one) for one in causes], np.int64)
    return np.asarray(numbers[messages.indices.to_numpy()])


def _numbers(causes: Collection[str], known: Sequence[str]) -> list[int]:
    return [known.index(cause) for cause in causes if cause in known]

"""How a table stands against the shards that are there: what is to be done with each row, and which samples count.

Joins the rows of a screening with the fates of shards, part by part of the hash of the address. Writes temporary files
(steps.data.collecting.parts).
"""

from collections import Counter
from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from steps.data.causes import Cause
from steps.data.collecting.fates import MARKS, NUMBER_SHIFT, FateBook
from steps.data.collecting.parts import Records, RowBytes, Rows, SpilledParts
from steps.data.collecting.screening import Screening

UNTRIED: Final = 1
REOPENED: Final = 2
"""It was refused by a limit that is laxer now."""
FAILED: Final = 2
"""And as many more as it was tried: it failed for a reason that can pass."""
LEFT_OUT: Final = 0xC0
"""And the number of its cause in the screening: the table leaves it out."""
MOST_TRIES: Final = LEFT_OUT - FAILED - 1
IS_ROW: Final = 0x80
"""Bit of a sample's byte: it is the last fate of a row that is wanted. The others are its mark."""
SAMPLE: Final = np.dtype([("place", "u8"), ("mark", "u1")])
SHARD_BITS: Final = 6
"""Last bits of a shard's number in which those of a part of samples differ."""
STATE: Final = np.dtype([("row", "i8"), ("state", "u1")])


class TableStanding:
    """The state of a table's rows, and of the samples in its shards."""

    def __init__(
        self,
        now: Screening,
        before: Screening | None,
        book: FateBook,
        numbers: Collection[int],
        former: Collection[int],
    ) -> None:
        """Join the table with the shards of these numbers; rows in `former` ones are judged by the screening `before`.

        The book has read all of them.
        """
        self._now, self._before, self._book = now, before, book
        self.states = RowBytes(len(now.fates))
        """Of each row: UNTRIED, REOPENED, FAILED + tries, LEFT_OUT + cause; 0: there is nothing to do."""
        count = max(book.shards, default=-1) + 1
        self.is_used = np.zeros(count, np.bool_)
        """Whether a shard has rows of the table, by its number."""
        self.most_earlier = np.full(count, -1)
        """How often one of a shard's rows had been fetched before, at most; -1: it has none."""
        self._is_there, self._is_former = (np.isin(np.arange(count), list(some)) for some in (numbers, former))
        self._last = np.zeros(len(book.causes), np.int64)
        self._sample_counts = np.zeros(count, np.int64)
        self._samples = SpilledParts(SAMPLE, NUMBER_SHIFT + SHARD_BITS)
        states = SpilledParts(STATE)
        for index, fates in enumerate(book.parts):
            there = fates[self._is_there[_number(fates)]]
            order = np.lexsort((there["place"], there["cause"] == 0, there["key"]))
            self._join(index, there[order], states)
        for index, (start, window) in enumerate(self.states.windows()):
            decided = now.fates[start : start + len(window)]
            window[:] = np.where(decided == 0, UNTRIED, LEFT_OUT + decided)
            found = states.part(index)
            window[found["row"] - start] = found["state"]

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many rows the table leaves out, and how many of the others failed for good or so far, by cause."""
        left_out = self.states.counts()[LEFT_OUT + 1 :].tolist()
        failed = zip(self._book.causes[1:], self._last[1:].tolist(), strict=True)
        return Counter(dict(zip(map(str, self._now.causes), left_out, strict=False))), Counter(dict(failed))

    def samples(self) -> RowBytes:
        """Return of each sample of the used shards, in their order, IS_ROW and its place in MARKS."""
        marks = RowBytes(int(self._sample_counts[self.is_used].sum()))
        first = 0
        for samples in self._samples:
            used = np.sort(samples[self.is_used[_number(samples)]], order="place")
            marks[first : first + len(used)][:] = used["mark"]
            first += len(used)
        return marks

    def _join(self, index: int, fates: Records, states: SpilledParts) -> None:
        """Note what the shards say of a part's rows; `fates` lie by key, the last word on a row behind the others."""
        rows = self._now.rows.part(index)
        end = np.searchsorted(fates["key"], rows["key"], side="right")
        tries = end - np.searchsorted(fates["key"], rows["key"])
        tried = np.flatnonzero(tries)
        rows, last, tries = rows[tried], end[tried] - 1, tries[tried]
        judged = self._judged(index, rows, tried, fates)
        is_wanted = judged == 0
        causes = fates["cause"][last]
        self._last += np.bincount(causes[is_wanted], minlength=len(self._last))
        found = np.zeros(len(rows), STATE)
        found["row"] = rows["row"]
        may_pass = is_wanted & self._book.can_pass[causes]
        found["state"] = np.where(is_wanted, 0, LEFT_OUT + judged)
        found["state"][may_pass] = FAILED + np.minimum(tries[may_pass], MOST_TRIES)
        found["state"][is_wanted & fates["is_reopened"][last]] = REOPENED
        states.add(found["row"], found)
        marks = self._marks(rows, judged, fates)
        marks[last[is_wanted]] |= IS_ROW
        self._note_shards(fates, rows["key"], marks)

    def _judged(self, index: int, rows: Records, places: Rows, fates: Records) -> npt.NDArray[np.uint8]:
        """Return the table's decision about rows that stand at these places of a part."""
        judged: npt.NDArray[np.uint8] = rows["fate"].copy()
        if self._before is not None:
            is_former = np.isin(rows["key"], fates["key"][self._is_former[_number(fates)]])
            causes = [self._now.causes.index(cause) + 1 for cause in self._before.causes]
            before = np.array([0, *causes], np.uint8)[self._before.rows.part(index)["fate"][places]]
            judged = np.where(is_former, before, judged)
        return judged

    def _marks(self, rows: Records, judged: npt.NDArray[np.uint8], fates: Records) -> npt.NDArray[np.uint8]:
        """Return the mark that each fate has where it is a sample."""
        # Of several rows with a key the one that is wanted counts, else the first.
        order = np.lexsort((rows["row"], judged != 0, rows["key"]))
        keys = rows["key"][order]
        marks = np.full(len(fates), MARKS.index(Cause.NOT_IN_TABLE), np.uint8)
        known = np.flatnonzero(np.isin(fates["key"], keys))
        cause = judged[order[np.searchsorted(keys, fates["key"][known])]]
        of_causes = np.array([0, *map(MARKS.index, self._now.causes)], np.uint8)
        marks[known] = np.where(cause == 0, fates["mark"][known], of_causes[cause])
        return marks

    def _note_shards(self, fates: Records, known: npt.NDArray[np.uint64], marks: npt.NDArray[np.uint8]) -> None:
        numbers = _number(fates)
        self.is_used[numbers[np.isin(fates["key"], known)]] = True
        earlier = np.arange(len(fates)) - np.searchsorted(fates["key"], fates["key"])
        np.maximum.at(self.most_earlier, numbers, earlier)
        is_sample = fates["cause"] == 0
        self._sample_counts += np.bincount(numbers[is_sample], minlength=len(self._sample_counts))
        samples = np.empty(int(is_sample.sum()), SAMPLE)
        samples["place"], samples["mark"] = fates["place"][is_sample], marks[is_sample]
        self._samples.add(samples["place"], samples)


def _number(records: Records) -> Rows:
    """Return the numbers of the shards in which fates or samples are."""
    return (records["place"] >> np.uint64(NUMBER_SHIFT)).astype(np.int64)

"""Reads a column of numbers of the url table, whatever type it is stored as, and refuses one of words.

Published tables have scores as floats, as texts, and as tags: LAION-400M's NSFW is UNLIKELY, UNSURE or NSFW.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from params.filters import TableColumn
from steps.errors import StepError

_NUMBER: Final = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
# How tools write that there is no number, in lower case.
_MISSING: Final = pa.array(["", "nan", "none", "null", "na", "n/a", "<na>", "-"])
# After so many words and no number nobody has to wait for the end of the table.
_ENOUGH_WORDS: Final = 1 << 16


class ScoreColumn:
    """One column, batch by batch."""

    def __init__(self, column: TableColumn, name: str, is_needed: bool) -> None:
        """`name` is the table's; a column that is not needed may hold anything."""
        self._column, self._name, self._is_needed = column, name, is_needed
        self._numbers = self._words = 0
        self._example = ""
        self._tags: set[str] = set()

    def __call__(self, batch: Any) -> npt.NDArray[np.float64]:
        """Return the numbers of some rows, NaN where there is none. Raises StepError where words are all there is."""
        numbers = self._of_texts(batch) if pa.types.is_string(batch.type) else self._cast(batch)
        self._numbers += int(np.isfinite(numbers).sum())
        if self._words >= _ENOUGH_WORDS:
            self._refuse_words()
        return numbers

    def finish(self) -> None:
        """Say how words were read, once all rows were. Raises StepError where they are all there is."""
        self._refuse_words()
        if self._tags:
            tags = ", ".join(f"{tag} = {self._column.words[tag]:g}" for tag in sorted(self._tags))
            print(f"url_table: {self._column.name}: column {self._name!r} holds words, read as {tags}", flush=True)
        if self._words and self._is_needed:
            print(
                f"url_table: {self._column.name}: values of column {self._name!r} that are no numbers (such as "
                f"{self._example!r}) count as missing: {self._words}",
                flush=True,
            )

    def _refuse_words(self) -> None:
        if self._words and not self._numbers and self._is_needed:
            raise StepError(
                f"url_table: a filter on {self._column.name} is set, but column {self._name!r} holds words (such as "
                f"{self._example!r}), not numbers; name another as score_columns={self._column.name}=COLUMN"
            )

    def _of_texts(self, texts: Any) -> npt.NDArray[np.float64]:
        words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(texts, "")))
        is_number = pc.match_substring_regex(words, _NUMBER)
        numbers: npt.NDArray[np.float64] = _to_numpy(pc.if_else(is_number, words, None).cast(pa.float64()))
        is_other = pc.and_not(pc.invert(is_number), pc.is_in(words, _MISSING))
        for tag, number in self._column.words.items():
            is_tag = pc.equal(words, tag)
            if pc.any(is_tag).as_py():
                self._tags.add(tag)
                numbers[_to_numpy(is_tag)] = number
                is_other = pc.and_not(is_other, is_tag)
        others = words.filter(is_other)
        if len(others):
            self._words += len(others)
            self._example = self._example or others[0].as_py()[:40]
        return numbers

    def _cast(self, batch: Any) -> npt.NDArray[np.float64]:
        try:
            return _to_numpy(batch.cast(pa.float64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if not self._is_needed:
                return np.full(len(batch), np.nan)
            raise StepError(
                f"url_table: a filter on {self._column.name} is set, but column {self._name!r} is of the type "
                f"{batch.type}, not a number; name another as score_columns={self._column.name}=COLUMN"
            ) from None


def _to_numpy(column: Any) -> npt.NDArray[Any]:
    # A copy: what Arrow hands out without one cannot be written to.
    return np.array(column.to_numpy(zero_copy_only=False))

"""Which caption of a picture counts, where it has a list of them.

download: {captions: random, captions_seed: 1}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from steps.data.tables.text_column import clean

Captions = str | list[str] | None
"""Of one picture: a list where all of several count."""


@dataclass(frozen=True)
class CaptionChoice:
    """How a list of captions becomes what is stored."""

    kind: Literal["first", "random", "all"] = "first"
    seed: int = 0

    def one(self, column: Any, first_row: int) -> Any:
        """Return a caption for each row, trimmed; null where there is none.

        `column` is a pyarrow array of strings or of lists of them; its first value is of row `first_row` of the table.
        """
        if pa.types.is_string(column.type):
            return clean(column)
        rows = [list(row) for row in _lists(column)]
        return pa.array(
            [row[self._place(number, len(row))] if row else None for number, row in enumerate(rows, first_row)],
            pa.string(),
        )

    def several(self, column: Any, first_row: int) -> list[Captions]:
        """Return what each row is to be stored with."""
        if self.kind != "all" or pa.types.is_string(column.type):
            texts: list[Captions] = self.one(column, first_row).to_pylist()
            return texts
        return [_captions(row) for row in _lists(column)]

    def _place(self, row: int, count: int) -> int:
        if self.kind != "random":
            return 0
        return int(xxhash.xxh3_64_intdigest(f"{self.seed} {row}".encode())) % count


def joined(captions: Captions, further: list[str]) -> Captions:
    """Return captions with those of the same picture's other rows."""
    own = captions if isinstance(captions, list) else [captions] if captions else []
    return _captions(own + further)


def _captions(row: list[str]) -> Captions:
    distinct = list(dict.fromkeys(row))
    return distinct if len(distinct) > 1 else distinct[0] if distinct else None


def _lists(column: Any) -> Iterator[list[str]]:
    """Yield the captions of each row that say something."""
    texts = clean(column.flatten()).to_pylist()
    stop = 0
    for count in pc.fill_null(pc.list_value_length(column), 0).to_pylist():
        start, stop = stop, stop + count
        yield [text for text in texts[start:stop] if text]

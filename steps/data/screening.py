"""Screens the url table before anything is fetched: which rows the filters leave, and which are there twice.

Reads the table once, streaming; writes nothing. Scores are read from the columns that published tables have (LAION's
and DataComp's names), or that `score_columns` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from params.programs import DownloadSettings
from steps.data.causes import Cause
from steps.data.url_table import UrlTable
from steps.errors import StepError

Mask = npt.NDArray[np.bool_]

# What a score is called in published tables, in lower case: LAION-5B, its aesthetic subsets, re-LAION, DataComp.
SCORE_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "prediction"),
    "watermark": ("pwatermark", "watermark_score"),
    "unsafe": ("punsafe", "nsfw_score"),
    "similarity": ("similarity", "clip_similarity", "clip_l14_similarity_score"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "language": ("language", "lang"),
}


@dataclass(frozen=True)
class Filter:
    """One reason to leave a row out."""

    cause: Cause
    """Under which it is counted."""
    columns: tuple[str, ...]
    """What it looks at."""
    drops: Callable[..., Mask]
    """Columns of a batch to the rows that it takes out."""


@dataclass(frozen=True, eq=False)
class Screening:
    """The fate of every row of a table, as far as the table decides it."""

    fates: npt.NDArray[np.uint8]
    """0: to be fetched; else the number of the cause, from 1, in `causes`."""
    causes: tuple[Cause, ...]
    """In the order in which they were applied."""

    def skipped(self, first_row: int, rows: int) -> dict[int, str]:
        """Return the rows of a slice, counted from its first, that are not fetched, and why."""
        fates = self.fates[first_row : first_row + rows]
        return {int(row): self.causes[fates[row] - 1].value for row in np.flatnonzero(fates)}


def screen(table: UrlTable, settings: DownloadSettings) -> Screening:
    """Decide about every row. Takes 17 bytes of memory for each.

    Raises StepError where a threshold is set and the table lacks the column.
    """
    filters = [_without_url(table), *filters_of(settings, table)]
    causes = (*(one.cause for one in filters), Cause.DUPLICATE)
    columns = list(dict.fromkeys(column for one in filters for column in one.columns))
    fates, hashes = np.zeros(table.rows, np.uint8), np.empty(table.rows, np.uint64)
    first = 0
    for batch in table.batches(columns):
        part = slice(first, first + batch.num_rows)
        for number, one in enumerate(filters, 1):
            drops = one.drops(*(batch.column(columns.index(column)) for column in one.columns))
            fates[part][drops & (fates[part] == 0)] = number
        for row, url in enumerate(batch.column(0).to_pylist(), first):
            hashes[row] = xxhash.xxh3_64_intdigest((url or "").strip().encode())
        first += batch.num_rows
    fates[_repeated(hashes, np.flatnonzero(fates == 0))] = len(causes)
    return Screening(fates, causes)


def _repeated(hashes: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of the rows whose hash an earlier one of them has."""
    order = rows[np.argsort(hashes[rows], kind="stable")]
    repeated: npt.NDArray[np.int64] = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
    return repeated


def filters_of(settings: DownloadSettings, table: UrlTable) -> Iterator[Filter]:
    """Yield the filters that the settings ask for. Raises StepError where the table lacks a column."""
    columns = _Columns(settings.score_columns, table.names)
    if settings.min_aesthetic_score > 0:
        yield Filter(Cause.AESTHETIC, columns.need("aesthetic"), _below(settings.min_aesthetic_score))
    if settings.max_watermark < 1:
        yield Filter(Cause.WATERMARK, columns.need("watermark"), _above(settings.max_watermark))
    if settings.max_unsafe < 1:
        yield Filter(Cause.UNSAFE, columns.need("unsafe"), _above(settings.max_unsafe))
    if settings.min_similarity > -1:
        yield Filter(Cause.SIMILARITY, columns.need("similarity"), _below(settings.min_similarity))
    if settings.languages:
        yield Filter(Cause.LANGUAGE, columns.need("language"), _is_not_in(settings.languages))
    if settings.min_caption_characters:
        least = settings.min_caption_characters
        yield Filter(Cause.SHORT_CAPTION, (table.caption_column,), lambda texts: _characters(texts) < least)
    if settings.max_caption_characters:
        most = settings.max_caption_characters
        yield Filter(Cause.LONG_CAPTION, (table.caption_column,), lambda texts: _characters(texts) > most)
    # The pictures are measured in any case; where the table knows, they need not be fetched for it.
    sides = (*columns.find("width"), *columns.find("height"))
    if len(sides) == 2:
        yield Filter(Cause.TOO_SMALL, sides, _smaller_than(settings.min_image_size_px))
        yield Filter(Cause.ASPECT_RATIO, sides, _longer_than(settings.max_aspect_ratio))


class _Columns:
    """Finds the columns of scores in a table."""

    def __init__(self, named: tuple[str, ...], names: tuple[str, ...]) -> None:
        self._names = names
        self._by_lower = {name.lower(): name for name in reversed(names)}
        self._named: dict[str, str] = {}
        for pair in named:
            score, equals, column = pair.partition("=")
            if not equals or score not in SCORE_NAMES:
                raise StepError(f"score_columns: {pair!r} is not SCORE=COLUMN with one of {', '.join(SCORE_NAMES)}")
            if column not in names:
                raise StepError(f"score_columns: the url table has no column {column!r}; it has {', '.join(names)}")
            self._named[score] = column

    def find(self, score: str) -> tuple[str, ...]:
        """Return the score's column, or nothing."""
        if score in self._named:
            return (self._named[score],)
        return tuple(self._by_lower[name] for name in SCORE_NAMES[score] if name in self._by_lower)[:1]

    def need(self, score: str) -> tuple[str, ...]:
        """Return the score's column."""
        found = self.find(score)
        if not found:
            raise StepError(
                f"url_table: a filter on {score} is set, but there is no column for it "
                f"({', '.join(SCORE_NAMES[score])}); name it as score_columns={score}=COLUMN: "
                f"the table has {', '.join(self._names)}"
            )
        return found


def _without_url(table: UrlTable) -> Filter:
    return Filter(Cause.NO_URL, (table.url_column,), lambda urls: _characters(pc.utf8_trim_whitespace(urls)) == 0)


def _below(least: float) -> Callable[[Any], Mask]:
    # A row without the score does not pass: comparisons with NaN are false.
    return lambda scores: ~(_numbers(scores) >= least)


def _above(most: float) -> Callable[[Any], Mask]:
    return lambda scores: ~(_numbers(scores) <= most)


def _smaller_than(least_px: int) -> Callable[[Any, Any], Mask]:
    def drops(widths: Any, heights: Any) -> Mask:
        shorter = np.minimum(_numbers(widths), _numbers(heights))
        return (shorter > 0) & (shorter < least_px)

    return drops


def _longer_than(most: float) -> Callable[[Any, Any], Mask]:
    def drops(widths: Any, heights: Any) -> Mask:
        wide, high = _numbers(widths), _numbers(heights)
        known = (wide > 0) & (high > 0)
        return known & (np.maximum(wide, high) > most * np.minimum(wide, high))

    return drops


def _is_not_in(languages: tuple[str, ...]) -> Callable[[Any], Mask]:
    wanted = pa.array([language.strip().lower() for language in languages])

    def drops(texts: Any) -> Mask:
        found: Mask = pc.is_in(pc.utf8_lower(texts.cast(pa.string())), value_set=wanted).to_numpy(zero_copy_only=False)
        return ~found

    return drops


def _numbers(column: Any) -> npt.NDArray[np.float64]:
    """Return a column as numbers; what is missing or is no number is NaN."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        matches = pc.match_substring_regex(pc.utf8_trim_whitespace(column), r"^[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$")
        column = pc.utf8_trim_whitespace(pc.if_else(matches, column, None))
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _characters(texts: Any) -> npt.NDArray[np.int64]:
    lengths: npt.NDArray[np.int64] = pc.fill_null(pc.utf8_length(texts.cast(pa.string())), 0).to_numpy()
    return lengths.astype(np.int64)
